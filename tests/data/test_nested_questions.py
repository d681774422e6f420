"""SQuAD's nested JSON becomes one row a question; other JSON is read as before."""

import json
import re

import pytest

from tests.data.reading import columns, refusal

CONTEXT = "The ferry to Ossel leaves at noon."
NOON = {"text": "at noon", "answer_start": 26}


def nested(*questions: dict, **extra) -> str:
    article = {"title": "Ferries", "paragraphs": [{"context": CONTEXT, "qas": list(questions)}]}
    return json.dumps({"version": "v2.0", "data": [article], **extra})


def test_version_1_gives_one_row_a_question(write) -> None:
    when = {"id": "a", "question": "When?", "answers": [NOON, NOON]}
    where = {"id": "b", "question": "Where to?", "answers": [{"text": "Ossel", "answer_start": 13}]}
    assert columns(write("dev.json", nested(when, where))) == {
        "title": ["Ferries", "Ferries"],
        "context": [CONTEXT, CONTEXT],
        "id": ["a", "b"],
        "question": ["When?", "Where to?"],
        "answers": [
            {"text": ["at noon", "at noon"], "answer_start": [26, 26]},
            {"text": ["Ossel"], "answer_start": [13]},
        ],
        "row": [1, 2],
    }


def test_version_2_keeps_which_questions_are_impossible(write) -> None:
    when = {"question": "When?", "answers": [NOON], "is_impossible": False}
    why = {"question": "Why?", "answers": [], "is_impossible": True, "plausible_answers": [NOON]}
    found = columns(write("dev.json", nested(when, why)))
    assert found["is_impossible"] == [False, True]
    assert found["answers"][1] == {"text": [], "answer_start": []}
    assert "plausible_answers" not in found


def test_a_file_without_answers_has_no_column_of_them(write) -> None:
    assert "answers" not in columns(write("test.json", nested({"question": "When?"})))


def test_an_indented_file_is_read_too(write) -> None:
    text = json.dumps(json.loads(nested({"question": "When?", "answers": [NOON]})), indent=2)
    assert columns(write("dev.json", text))["question"] == ["When?"]


def test_data_without_paragraphs_are_rows_as_before(write) -> None:
    assert columns(write("rows.json", '{"data": [{"text": "a"}, {"text": "b"}]}'))["text"] == ["a", "b"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"data": [{"paragraphs": 3}]}, "d.json, article 1: expected an object with a list called paragraphs"),
        ({"data": [{"paragraphs": [{"context": "x"}]}]}, "article 1, paragraph 1: .* a list called qas"),
        ({"data": [{"paragraphs": []}, "x"]}, "article 2: expected an object"),
        ({"data": [{"paragraphs": [{"context": "x", "qas": ["why"]}]}]}, "paragraph 1, question 1: expected an object"),
        (
            {"data": [{"paragraphs": [{"context": "x", "qas": [{"question": "q", "answers": "noon"}]}]}]},
            "question 1: answers must be a list of objects with text and answer_start",
        ),
    ],
)
def test_another_structure_is_refused_with_its_place(write, document: dict, message: str) -> None:
    assert re.search(message, refusal(write("d.json", json.dumps(document))))
