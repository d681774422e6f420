"""Pairs of texts: their columns, their scores, and what is encoded of them."""

import pytest
from datasets import Dataset

from nlp_finetune.data import text_pairs
from nlp_finetune.errors import InputError


def table(**columns: list) -> Dataset:
    size = len(next(iter(columns.values())))
    return Dataset.from_dict({**columns, "row": list(range(1, size + 1))})


def found(data: Dataset, **asked) -> text_pairs.Columns:
    return text_pairs.find(data, **{"text": None, "negative": None, "label": None, **asked})


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("sentence1", "sentence2", "score"), "scored"),
        (("sentence1", "sentence2", "label"), "scored"),
        (("anchor", "positive"), "positive"),
        (("anchor", "positive", "negative"), "positive"),
        (("query", "answer"), "positive"),
        (("question1", "question2"), "positive"),
    ],
)
def test_columns_say_what_pairs_teach(names: tuple[str, ...], kind: str) -> None:
    columns = found(table(**{name: [0.5] if name in ("score", "label") else ["x"] for name in names}))
    assert (columns.pair, columns.kind) == (list(names[:2]), kind)
    assert columns.negative == ("negative" if "negative" in names else None)


def test_a_single_text_is_read_where_vectors_are_wanted() -> None:
    columns = text_pairs.Columns(["a", "b"], None, "score")
    assert set(text_pairs.read(table(a=["x"]), columns, "input", labelled=False)) == {"text", "row"}
    assert set(text_pairs.read(table(text=["x"]), columns, "input", labelled=False)) == {"text", "row"}
    assert set(text_pairs.read(table(a=["x"], b=["y"]), columns, "input", labelled=False)) == {
        "text",
        "text_pair",
        "row",
    }


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([0.2, 0.9], (0, 1)), ([-0.5, 1.0], (0, 1)), ([0.0, 5.0], (0, 5)), ([1, 5], (1, 5)), ([0, 1], (0, 1))],
)
def test_the_range_of_scores_is_zero_to_one_or_the_extremes(scores: list[float], expected: tuple[float, float]) -> None:
    assert text_pairs.score_range(scores, None, [1, 2]) == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sentence1": ["x"], "sentence2": ["y"], "score": ["entailment"]}, "row 1, column 'score' holds 'entailment'"),
        ({"sentence1": ["x"], "sentence2": ["y"], "score": [None]}, "row 1, column 'score' holds None"),
        ({"sentence1": ["x"], "sentence2": ["y"], "score": [float("nan")]}, "which is no score"),
        ({"sentence1": ["x"] * 2, "sentence2": ["y", None], "score": [1.0] * 2}, r"'sentence2' has no text in 1 of 2"),
        ({"text": ["x"], "score": [1.0]}, "Two columns of texts are needed"),
    ],
)
def test_rows_that_are_no_pairs_are_refused_by_number(columns: dict, message: str) -> None:
    data = table(**columns)
    with pytest.raises(InputError, match=message):
        text_pairs.read(data, found(data), "train", labelled=True)


def test_scores_that_teach_nothing_or_lie_outside_the_range_are_refused() -> None:
    with pytest.raises(InputError, match="every score is 3"):
        text_pairs.score_range([3.0, 3.0], None, [1, 2])
    with pytest.raises(InputError, match=r"row 2 has the score 6, outside task.score_range=\[0, 5\]"):
        text_pairs.score_range([3.0, 6.0], [0.0, 5.0], [1, 2])
    with pytest.raises(InputError, match="the smaller score comes first"):
        text_pairs.score_range([3.0, 6.0], [5.0, 0.0], [1, 2])


def test_scores_and_negatives_exclude_each_other() -> None:
    data = table(anchor=["x"], positive=["y"], negative=["z"], score=[1.0])
    with pytest.raises(InputError, match="have no negatives"):
        found(data, label="score", negative="negative")
