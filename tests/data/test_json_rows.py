"""JSON and JSON lines: rows with their types, or what is wrong and in which line."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.data.reading import columns, refusal

Write = Callable[[str, Any], str]


ROWS = [{"text": "a", "label": 1, "tags": ["x"]}, {"text": "007", "label": 0, "tags": []}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps(ROWS, indent=2)),
        ("a.json", json.dumps({"version": 1, "data": ROWS})),
        ("a.json", "\n".join(map(json.dumps, ROWS))),
        ("a.jsonl", "\n\n".join(map(json.dumps, ROWS)) + "\n"),
        ("a.ndjson", "\r\n".join(map(json.dumps, ROWS))),
        ("a.jsonl", json.dumps(ROWS, indent=2)),
    ],
)
def test_json_in_every_usual_form_keeps_its_types(write: Write, name: str, content: str) -> None:
    assert columns(write(name, content)) == {
        "text": ["a", "007"],
        "label": [1, 0],
        "tags": [["x"], []],
        "row": [1, 2],
    }


def test_spans_as_lists_of_three_become_objects(write: Write) -> None:
    rows = [{"text": "Ada B", "label": [[0, 3, "PER"]]}, {"text": "no", "label": []}]
    assert columns(write("a.json", json.dumps(rows)))["label"] == [[{"start": 0, "end": 3, "label": "PER"}], []]


def test_a_first_value_that_mixes_types_is_not_compared_with_others(write: Write) -> None:
    rows = "\n".join(json.dumps({"x": [1, "a"]}) for _ in range(2))
    assert "line 1: the value of column 'x' mixes types" in refusal(write("a.jsonl", rows))


def test_one_row_of_lists_is_a_row(write: Write) -> None:
    assert columns(write("a.jsonl", '{"tokens": ["a", "b"], "tags": [0, 1]}\n'))["tags"] == [[0, 1]]


def test_keys_that_a_row_lacks_are_none(write: Write) -> None:
    write("a.jsonl", '{"text": "a"}\n{"label": "x", "text": null}\n')
    assert columns("a.jsonl") == {"text": ["a", None], "label": [None, "x"], "row": [1, 2]}


def test_whole_numbers_among_others_are_numbers(write: Write) -> None:
    assert columns(write("a.jsonl", '{"score": 1}\n{"score": 2.5}\n'))["score"] == [1.0, 2.5]


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.jsonl", '{"text": "a"}\n\n{"text": \n{"text": "c"}\n', "a.jsonl, line 3: not valid JSON"),
        ("a.jsonl", '{"text": "a"\n{"text": "b"}\n', "a.jsonl, line 1: not valid JSON"),
        ("a.json", '[\n{"text": "a"},\n{"text": b}\n]', "a.json, line 3, column 10: not valid JSON"),
        ("a.jsonl", '{"text": "a"}\n["b"]\n', "a.jsonl, line 2: expected an object, found a list"),
        ("a.json", '[{"text": "a"}, "b"]', "a.json, row 2: expected an object, found text"),
        ("a.json", '{"sst2": [{"text": "a"}], "rte": []}', "found one object with the keys sst2, rte"),
        ("a.json", "[]", "a.json has no rows"),
        ("a.jsonl", "{}\n{}\n", "none of them has any keys"),
    ],
)
def test_json_that_holds_no_rows_is_refused_with_the_place(write: Write, name: str, content: str, place: str) -> None:
    assert place in refusal(write(name, content))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1, 2, "three"], "a whole number in line 1 and text in line 3"),
        (["a", None, 1.5], "text in line 1 and a number in line 3"),
        ([True, 1], "true or false in line 1 and a whole number in line 2"),
        (["a", ["b"]], "text in line 1 and a list in line 2"),
        (["a", float("nan")], "text in line 1 and a number in line 2"),
    ],
)
def test_a_json_column_of_mixed_types_is_refused_with_both_places(write: Write, values: list[Any], found: str) -> None:
    write("a.jsonl", "\n".join(json.dumps({"label": value}) for value in values))
    assert f"a.jsonl: column 'label' mixes types: {found}." in refusal("a.jsonl")


@pytest.mark.parametrize("value", [["x"], 2**70, "\ud800"])
def test_a_json_value_that_does_not_fit_its_column_is_refused_with_its_line(write: Write, value: Any) -> None:
    first = {list: [1], int: 1, str: "a"}[type(value)]
    write("a.jsonl", "\n".join(json.dumps({"x": v}) for v in (first, first, value, first)))
    assert "a.jsonl, line 3: the value of column 'x' does not fit" in refusal("a.jsonl")
