"""The evidence behind the scores, for every task that gives any."""

import json
from pathlib import Path

import pytest
from datasets import Dataset

from nlp_finetune.metrics.details import row_scores
from nlp_finetune.reports import evidence
from nlp_finetune.runs.folder import RunFolder


class Numbers:
    """A task of one's own with two rows, one of them predicted without a finite score."""

    def row_scores(self, predictions: list[float], rows: Dataset) -> object:
        return row_scores("accuracy", [1.0, 0.0])

    def decode(self, predictions: list[float], rows: Dataset) -> list[dict]:
        return [{"label": "x", "score": p, "scores": {"x": p}} for p in predictions]

    def row_text(self, row: dict) -> str:
        return row["text"]

    def row_label(self, row: dict) -> str | None:
        return row["label"]


@pytest.fixture
def rows() -> Dataset:
    return Dataset.from_dict({"row": [7, 9], "text": ["short", "long " * 200], "label": ["x", "y"]})


def lines(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in (folder.predictions / "test.jsonl").read_text().splitlines()]


def test_predictions_have_a_line_a_row_without_probabilities_of_all_classes(tmp_path: Path, rows: Dataset) -> None:
    folder = RunFolder(tmp_path)
    evidence.write_predictions(folder, "test", Numbers(), [0.5, float("nan")], rows)  # type: ignore[arg-type]
    first, second = lines(folder)
    assert first == {
        "key": first["key"], "row": 7, "score": 1.0, "weight": 1.0, "text": "short",
        "prediction": {"label": "x", "score": 0.5},
    }  # fmt: skip
    assert second["prediction"]["score"] is None
    assert len(second["text"]) <= 160


def test_a_row_has_the_same_key_wherever_it_stands(tmp_path: Path, rows: Dataset) -> None:
    keys = []
    for name, order in (("a", [0, 1]), ("b", [1, 0])):
        folder = RunFolder(tmp_path / name)
        folder.create()
        evidence.write_predictions(folder, "test", Numbers(), [0.5, 0.5], rows.select(order))  # type: ignore[arg-type]
        keys.append([line["key"] for line in lines(folder)])
    assert keys[0] == keys[1][::-1]
    assert keys[0][0] != keys[0][1]


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    evidence.write_details(folder, {"test": {"ece": float("nan"), "bins": [{"rows": 3, "low": float("inf")}]}})
    assert json.loads(folder.details.read_text()) == {"test": {"ece": None, "bins": [{"rows": 3, "low": None}]}}
