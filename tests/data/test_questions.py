"""Question columns: found by name, answers checked against their positions."""

from pathlib import Path

import pytest
from datasets import Dataset

from nlp_finetune.data import questions
from nlp_finetune.data.sources import read_file
from nlp_finetune.errors import InputError

CONTEXT = "The ferry leaves at noon. On Sunday the ferry rests."
COLUMNS = questions.Columns("question", "context", "answers")


def data(*answers, **columns) -> Dataset:
    size = len(answers)
    rows = {"question": ["When?"] * size, "context": [CONTEXT] * size, "answers": list(answers), **columns}
    return Dataset.from_dict({**rows, "row": list(range(1, size + 1))})


def gold(text: str | list, start: int | list | None) -> dict:
    listed = [text] if isinstance(text, str) else text
    return {"text": listed, "answer_start": start if isinstance(start, list) else [start] * len(listed)}


def read(rows: Dataset) -> tuple[dict, questions.Report]:
    return questions.read(rows, COLUMNS, "train", labelled=True)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("question", "context", "answers"), ("question", "context", "answers")),
        (("Query", "Passage", "answer"), ("Query", "Passage", "answer")),
    ],
)
def test_columns_are_found_by_usual_names(names: tuple, found: tuple) -> None:
    rows = Dataset.from_dict({name: ["x"] for name in names})
    assert questions.find(rows, question=None, context=None, answers=None) == questions.Columns(*found)


def test_columns_without_a_usual_name_are_listed() -> None:
    rows = Dataset.from_dict({"question": ["x"], "story": ["y"], "row": [1]})
    with pytest.raises(InputError, match=r"No context column.*Columns: question, story\. Set task\.context=COLUMN"):
        questions.find(rows, question=None, context=None, answers=None)


def test_an_answer_at_its_position_is_kept() -> None:
    columns, report = read(data(gold("at noon", 17)))
    assert (columns["answers"], columns["starts"]) == ([["at noon"]], [[17]])
    assert report == questions.Report(rows=1, answers=1)


def test_white_space_around_an_answer_moves_its_start() -> None:
    columns, report = read(data(gold(" at noon", 16)))
    assert (columns["answers"], columns["starts"]) == ([["at noon"]], [[17]])
    assert not report.moved


@pytest.mark.parametrize("start", [0, 18, -5, 4000])
def test_an_answer_that_occurs_once_elsewhere_is_moved_there(start: int) -> None:
    columns, report = read(data(gold("at noon", start)))
    assert columns["starts"] == [[17]]
    assert report.moved == [1]


@pytest.mark.parametrize("text", ["ferry", "at midnight"])
def test_an_answer_that_occurs_elsewhere_twice_or_never_is_lost(text: str) -> None:
    columns, report = read(data(gold("at noon", 17), gold(text, 1)))
    assert columns["starts"] == [[17], [questions.UNKNOWN]]
    assert columns["answers"][1] == [text]
    assert (report.lost, report.unusable, report.moved) == ([2], [2], [])


def test_a_lost_answer_beside_a_good_one_leaves_the_question_usable() -> None:
    columns, report = read(data(gold(["at midnight", "at noon"], [3, 17])))
    assert columns["starts"] == [[questions.UNKNOWN, 17]]
    assert (report.lost, report.unusable) == ([1], [])


def test_a_position_that_was_never_given_is_found_without_complaint() -> None:
    columns, report = read(data({"text": ["at noon"]}))
    assert columns["starts"] == [[17]]
    assert not report.moved


@pytest.mark.parametrize("answers", [gold([], []), {"text": [""], "answer_start": [-1]}])
def test_no_text_is_no_answer(answers: dict) -> None:
    columns, report = read(data(answers))
    assert columns["answers"] == [[]]
    assert not report.unusable


def test_an_impossible_question_has_no_answer_whatever_stands_there() -> None:
    columns, _ = read(data(gold("at noon", 17), gold("at noon", 17), is_impossible=[True, False]))
    assert columns["answers"] == [[], ["at noon"]]


def test_answers_may_be_a_list_of_objects() -> None:
    columns, _ = read(data([{"text": "at noon", "answer_start": 17}]))
    assert columns["starts"] == [[17]]


def test_rows_without_a_visible_question_or_context_are_unusable() -> None:
    rows = data(gold("at noon", 17), gold("at noon", 17), question=["When?", " "])
    assert read(rows)[1].blank == read(rows)[1].unusable == [2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            data(gold("at noon", 17), gold("x", 1), context=[CONTEXT, None]),
            r"train: column 'context' has no text in 1 of 2 rows \(first: row 2\)",
        ),
        (data(gold("at noon", 17), question=[None]), r"column 'question' has no text in 1 of 1 rows"),
        (data("at noon"), r"train, row 1: column 'answers' holds 'at noon'; expected \{\"text\""),
        (data(["at noon"]), r"row 1: column 'answers' holds \['at noon'\]"),
        (data(gold("at noon", 17), None), r"row 2: column 'answers' holds nothing"),
        (data(gold(["at noon", "noon"], [17])), "not as many answer_start as text"),
        (data(gold("at noon", "17")), "answer_start whole numbers"),
        (data(gold("at noon", 17)).remove_columns("answers"), "train: no column 'answers' with answers"),
    ],
)
def test_what_is_no_question_with_answers_is_refused_with_its_row(rows: Dataset, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(rows)


def test_rows_are_labelled_where_any_has_answers() -> None:
    assert questions.has_answers(data(gold("at noon", 17), None), COLUMNS)
    assert not questions.has_answers(data(None, None), COLUMNS)


def test_real_chinese_data_are_read_and_their_mistakes_counted(shared_data: Path) -> None:
    rows, _ = read_file(str(shared_data / "cmrc2018" / "cmrc2018_trial.json"))
    columns, report = read(rows)
    assert (report.rows, report.answers) == (1002, 1002)
    assert (len(report.moved), report.lost, report.blank) == (5, [], [748, 809])
    assert columns["answers"][0] == ["\u8e22\u7206"]


def test_real_unanswerable_questions_are_read(shared_data: Path) -> None:
    rows, _ = read_file(str(shared_data / "squad_v2_subset" / "squad_v2_subset_5articles.json"))
    columns, report = read(rows)
    assert sum(not answers for answers in columns["answers"]) == 702
    assert (report.rows, report.moved, report.lost, report.unusable) == (1407, [], [], [])
