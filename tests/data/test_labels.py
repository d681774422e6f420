"""Label columns: what kind of problem they pose, and how they are read."""

import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value

from nlp_finetune.data import labels
from nlp_finetune.errors import InputError


def data(values: list, column: str = "label", features: Features | None = None) -> Dataset:
    columns = {"text": ["a"] * len(values), column: values, "row": list(range(1, len(values) + 1))}
    return Dataset.from_dict(columns, features=features)


def learn(values: list, problem: str | None = None, **kwargs) -> labels.Learned:
    return labels.learn({"train": data(values, **kwargs)}, "label", problem=problem)


@pytest.mark.parametrize(
    ("values", "problem", "names"),
    [
        (["good", "bad", "good"], "single_label", ["bad", "good"]),
        ([0, 1, 10, 2], "single_label", ["0", "1", "2", "10"]),
        (["0", "10", "2"], "single_label", ["0", "2", "10"]),
        ([1.0, 0.0, 1.0], "single_label", ["0", "1"]),
        ([True, False], "single_label", ["False", "True"]),
        (["a|b", "b", ""], "multi_label", ["a", "b"]),
        ([["x"], ["x", "y"], []], "multi_label", ["x", "y"]),
        ([[10, 2], [2], [3]], "multi_label", ["2", "3", "10"]),
        ([[0, 1, 1], [1, 0, 0]], "multi_label", ["0", "1", "2"]),
        ([0.5, 1.25, 3.0], "regression", []),
        (["4.5", "3", "0.2"], "regression", []),
    ],
)
def test_the_problem_is_inferred_from_the_values(values: list, problem: str, names: list[str]) -> None:
    learned = learn(values)
    assert (learned.problem, learned.names) == (problem, names)


def test_the_summary_says_what_was_inferred() -> None:
    assert learn(["x", "y", "z"]).summary == "3 classes, strings -> text_classification, single label"


def test_the_problem_can_be_overruled() -> None:
    assert learn([1, 2, 3, 4], problem="regression").problem == "regression"
    assert learn(["a|b", "c"], problem="single_label").names == ["a|b", "c"]


def test_class_names_declared_by_the_data_set_keep_their_order() -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["pos", "neg"]), "row": Value("int64")})
    table = data([1, 0], features=features)
    learned = labels.learn({"train": table}, "label", problem=None)
    assert learned.names == ["pos", "neg"]
    assert labels.read(table, "label", "train", problem="single_label", names=learned.names) == [1, 0]


def test_lists_of_declared_classes_are_multi_label() -> None:
    kind = Sequence(ClassLabel(names=["a", "b", "c"]))
    features = Features({"text": Value("string"), "label": kind, "row": Value("int64")})
    table = data([[0, 2], []], features=features)
    names = labels.learn({"train": table}, "label", problem=None).names
    read = labels.read(table, "label", "train", problem="multi_label", names=names)
    assert (names, read) == (["a", "b", "c"], [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])


def test_several_columns_of_flags_are_multi_label() -> None:
    table = Dataset.from_dict({"a": ["1", "0"], "b": ["true", "FALSE"], "row": [1, 2]})
    learned = labels.learn({"train": table}, ["a", "b"], problem=None)
    assert learned.problem == "multi_label"
    read = labels.read(table, ["a", "b"], "train", problem="multi_label", names=learned.names)
    assert read == [[1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "a"], "only one class"),
        (["a", None, "b"], r"empty in 1 of 3 rows \(first: row 2\)"),
        (["a", " ", "b"], r"first: row 2"),
        ([f"id {i}" for i in range(400)], "400 different values"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(values: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learn(values)


def test_words_are_refused_as_numbers() -> None:
    with pytest.raises(InputError, match="holds 'x'"):
        learn(["1", "x"], problem="regression")


def test_an_unknown_label_names_split_row_and_value() -> None:
    with pytest.raises(InputError, match="validation: row 2 has the label 'c'"):
        labels.read(data(["a", "c"]), "label", "validation", problem="single_label", names=["a", "b"])


def test_a_class_that_only_validation_has_becomes_a_class() -> None:
    splits = {"train": data(["a", "b"]), "validation": data(["c"])}
    assert labels.learn(splits, "label", problem=None).names == ["a", "b", "c"]


def test_the_label_column_is_found_by_name() -> None:
    assert labels.find(data(["a"], column="Sentiment"), None, taken=["text"]) == "Sentiment"


def test_a_label_column_that_is_absent_is_refused_with_the_columns_there_are() -> None:
    with pytest.raises(InputError, match=r"no column 'klass'.*text, label"):
        labels.find(data(["a"]), "klass", taken=["text"])


def test_a_split_without_labels_is_recognised() -> None:
    assert not labels.has_labels(data([None, None]), "label")
    assert not labels.has_labels(Dataset.from_dict({"text": ["a"], "row": [1]}), "label")
    assert labels.has_labels(data([None, "a"]), "label")
