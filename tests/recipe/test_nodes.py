"""YAML 1.2 scalars, lines and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml

from nlp_finetune.recipe import nodes


def parsed(text: str) -> Any:
    node, problems = nodes.parse(text, "file.yaml")
    assert problems == []
    assert node is not None
    return nodes.value(node)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("5e-5", 5e-5),
        ("1e5", 1e5),
        ("2.0e-5", 2e-5),
        (".5", 0.5),
        ("-1.", -1.0),
        ("12", 12),
        ("-3", -3),
        ("012", 12),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
    ],
)
def test_scalars_are_read_as_yaml_1_2_says(text: str, value: object) -> None:
    found = parsed(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "y", "1:30", "2024-01-01", "1_000", "scratch:bert", "e5"])
def test_words_that_yaml_1_1_would_convert_stay_text(text: str) -> None:
    assert parsed(text) == text


def test_quoted_numbers_are_text() -> None:
    assert parsed("['1', \"2e5\", 'null']") == ["1", "2e5", "null"]


def test_infinity_and_nan_are_floats() -> None:
    assert parsed("-.inf") == -math.inf
    assert math.isnan(parsed(".nan"))


def test_text_reading_keeps_what_is_written() -> None:
    node, _ = nodes.parse("[0012, 1e5, true, null]", "file.yaml")
    assert node is not None
    assert nodes.value(node, as_text=True) == ["0012", "1e5", "true", None]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\nb: [1, 2", "file.yaml:2"),
        ("a: 1\nb: &x 1\n", "file.yaml:2"),
        ("a: 1\nb: *x\n", "file.yaml:2"),
        ("a: 1\nb: !!python/name:os.system 1\n", "file.yaml:2"),
        ("a: 1\na: 2\n", "file.yaml:2"),
        ("a:\n  b: 1\n  c: {d: 1, d: 2}\n", "file.yaml:3"),
        ("a: \x00", "file.yaml"),
    ],
)
def test_broken_yaml_is_a_problem_with_its_line(text: str, where: str) -> None:
    _, problems = nodes.parse(text, "file.yaml")
    assert [problem.where for problem in problems] == [where]


def test_very_deep_nesting_is_a_problem_and_not_a_crash() -> None:
    _, problems = nodes.parse("[" * 5000, "file.yaml")
    assert len(problems) == 1


@pytest.mark.parametrize(
    "value", ["1e5", "12", "yes", "null", "", "a: b", "2024-01-01", "|", "好评", " x ", "#no", "é\u2028\t"]
)
def test_written_texts_are_read_back_by_this_reader_and_by_yaml_1_1(value: str) -> None:
    text = nodes.dump({"key": value, "list": [value]})
    assert parsed(text) == {"key": value, "list": [value]}
    assert yaml.safe_load(text) == {"key": value, "list": [value]}


@pytest.mark.parametrize("value", [1e-5, 2e-5, 1e22, 0.1, -3.0, 7, True, None, {}, {"a": {"b": []}}])
def test_written_values_are_read_back_by_this_reader_and_by_yaml_1_1(value: object) -> None:
    text = nodes.dump({"key": value})
    assert parsed(text) == {"key": value}
    assert yaml.safe_load(text) == {"key": value}
