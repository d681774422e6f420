"""Options of questions in the forms in which data sets have them, and which of them is right."""

import pytest
from datasets import Dataset

from nlp_finetune.data import choices, right_options
from nlp_finetune.errors import InputError


def table(**columns: list) -> Dataset:
    size = len(next(iter(columns.values())))
    return Dataset.from_dict({**columns, "row": list(range(1, size + 1))})


def found(data: Dataset, **asked) -> choices.Columns:
    return choices.find(data, **{"context": None, "question": None, "options": None, "label": None, **asked})


def learned(data: Dataset) -> tuple[str, list[int]]:
    columns = found(data)
    rows, cells = choices.read(data, columns, "train"), data[columns.label][:]
    way = right_options.learn({"train": cells}, {"train": rows}, columns)
    return way, right_options.read(cells, rows, columns, "train", way=way)


ASKED = ["Who?", "Where?"]
LISTS = [["me", "you", "us"], ["here", "there"]]
FORMS = {
    "columns with letters": {
        "question": ASKED, "option_a": ["me", "here"], "option_b": ["you", "there"], "option_c": ["us", None],
    },
    "columns in camel case": {
        "FalseSent": ASKED, "OptionA": ["me", "here"], "OptionB": ["you", "there"], "OptionC": ["us", " "],
    },
    "numbered endings": {
        "sent1": ["A", "B"], "sent2": ASKED, "ending0": ["me", "here"], "ending1": ["you", "there"],
        "ending2": ["us", ""],
    },
    "lists": {"question": ASKED, "choices": LISTS},
    "lists in the text of a table": {"question": ASKED, "options": ["me|you|us", '["here", "there"]']},
    "nested labels and texts": {
        "question": ASKED,
        "choices": [{"label": list("ABC"), "text": LISTS[0]}, {"label": list("AB"), "text": LISTS[1]}],
    },
    "lists of labels and texts": {
        "question": ASKED,
        "choices": [[{"label": "ABC"[i], "text": text} for i, text in enumerate(row)] for row in LISTS],
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_options_are_read_in_every_usual_form(form: str) -> None:
    data = table(**FORMS[form], label=[0, 1])
    rows = choices.read(data, found(data), "train")
    assert rows["options"] == LISTS
    assert rows["question"] == ASKED


@pytest.mark.parametrize(
    ("columns", "context", "question"),
    [
        (("context", "question"), "context", "question"),
        (("sent1", "sent2"), "sent1", "sent2"),
        (("article", "question"), "article", "question"),
        (("premise",), None, "premise"),
        (("context",), None, "context"),
        (("ctx_a", "ctx_b"), "ctx_a", "ctx_b"),
    ],
)
def test_context_and_question_are_found_by_name(columns: tuple[str, ...], context: str | None, question: str) -> None:
    data = table(**dict.fromkeys(columns, ASKED), choices=LISTS, label=[0, 1])
    assert (found(data).context, found(data).question) == (context, question)


def test_a_question_asked_for_stands_alone() -> None:
    data = table(context=ASKED, question=ASKED, choices=LISTS, label=[0, 1])
    assert found(data, question="context").context is None


def test_an_option_that_is_missing_keeps_the_letters_of_the_others() -> None:
    data = table(question=["Q"], option_a=["x"], option_b=[""], option_c=["z"], label=["C"])
    assert choices.read(data, found(data), "train")["names"] == [["A", "C"]]
    assert learned(data) == ("name", [1])


@pytest.mark.parametrize(
    ("labels", "way"),
    [
        (["C", "B"], "name"),
        (["c", "b"], "name"),
        (["us", "there"], "text"),
        ([2, 1], "from 0"),
        (["2", "1"], "from 0"),
        ([3, 2], "from 1"),
        ([2.0, 1.0], "from 0"),
    ],
)
def test_a_label_is_a_letter_a_text_or_a_number(labels: list, way: str) -> None:
    assert learned(table(question=ASKED, choices=LISTS, label=labels)) == (way, [2, 1])


@pytest.mark.parametrize(("labels", "way"), [([1, 2], "name"), ([0, 1], "from 0"), (["choice1", "choice2"], "name")])
def test_numbers_are_those_of_the_columns_unless_there_is_a_zero(labels: list, way: str) -> None:
    data = table(premise=ASKED, choice1=["me", "here"], choice2=["you", "there"], label=labels)
    assert learned(data) == (way, [0, 1])


def test_options_that_are_numbers_are_labelled_by_their_texts() -> None:
    data = table(question=["1+1?", "1+2?"], choices=[["1", "2", "3"], ["3", "5"]], label=["2", "3"])
    assert learned(data) == ("text", [1, 0])


def test_what_is_written_is_read_again() -> None:
    row = {"options": ["x", "y", "z"], "names": ["A", "B", "C"]}
    columns = choices.Columns(None, "question", ["choices"], "label")
    for way in right_options.WAYS:
        for at in range(3):
            label = right_options.written(at, way, row)
            assert right_options.position(label, way, row, columns) == at


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"question": ["Q"], "choices": [["only"]], "label": [0]}, "row 1: column 'choices': one option"),
        ({"question": ["Q"], "choices": [[]], "label": [0]}, "row 1: column 'choices': no options"),
        ({"question": ["Q"], "choices": ['["broken'], "label": [0]}, "row 1: column 'choices': not a list of texts"),
        ({"question": ["Q"], "choices": [None], "label": [0]}, "row 1: column 'choices': not a list of texts"),
        ({"question": ["Q"], "choices": [["a", "b"]], "label": [3]}, "row 1: the label 3 of column 'label'"),
        ({"question": ["Q"], "choices": [["a", "b"]], "label": ["E"]}, r"none, or several, of its options \(a \| b\)"),
        ({"question": ["Q"], "choices": [["x", "x"]], "label": ["x"]}, "none, or several"),
        ({"question": ["Q"] * 3, "choices": [["a", "b"]] * 3, "label": [0, 1, 2]}, "row 3: the label 2"),
        ({"question": [None], "choices": [["a", "b"]], "label": [0]}, "column 'question' has no text"),
        ({"question": ["Q"], "body": ["x"], "label": [0]}, "No options found by name. Columns: question, body, label"),
        ({"body": ["Q"], "choices": [["a", "b"]], "label": [0]}, "No question column found by name"),
    ],
)
def test_rows_without_a_choice_are_refused_by_number(columns: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learned(table(**columns))


def test_rows_without_a_label_are_no_labels() -> None:
    for blank in ([-1, -1], ["", " "], [None, None]):
        assert not right_options.has_labels(table(label=blank), "label")
    assert right_options.has_labels(table(label=[-1, 0]), "label")
    assert not right_options.has_labels(table(text=["x"]), "label")
