"""What is wrong with questions and options, as findings of `check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nlp_finetune.data import ROW
from nlp_finetune.data.checks import Finding
from nlp_finetune.data.duplicates import normalise

if TYPE_CHECKING:
    from datasets import Dataset

_SHOWN = 3


def examine(rows: Mapping[str, Dataset]) -> list[Finding]:
    """Rows that offer an option twice, and questions that have other right options elsewhere."""
    twice: list[Finding] = []
    right: dict[Any, dict[str, list[str]]] = {}
    for split, data in rows.items():
        repeated = []
        for row in data:
            options = [normalise(option) for option in row["options"]]
            if len(set(options)) < len(options):
                repeated.append(row[ROW])
            key = (row.get("context"), normalise(row["question"]), tuple(sorted(options)))
            right.setdefault(key, {}).setdefault(options[row["label"]], []).append(f"{split} row {row[ROW]}")
        if repeated:
            message = f"{split}: {len(repeated):,} rows offer the same option twice ({_rows(repeated)})"
            twice.append(Finding("warning", "repeated_options", message))
    conflicts = [[places[0] for places in answers.values()] for answers in right.values() if len(answers) > 1]
    if conflicts:
        message = (
            f"{len(conflicts):,} questions stand with the same options and another right one elsewhere "
            f"(first: {' and '.join(conflicts[0][:2])})"
        )
        twice.append(Finding("warning", "conflicting_labels", message))
    return twice


def _rows(rows: list[int]) -> str:
    return f"row {', '.join(map(str, rows[:_SHOWN]))}{', ...' if len(rows) > _SHOWN else ''}"
