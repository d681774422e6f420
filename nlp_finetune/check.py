"""What the data are like and what is wrong with them: half of the `check` verb, and a first step of `train`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlp_finetune import augmenting
from nlp_finetune.data import checks, lengths
from nlp_finetune.data.duplicates import SplitTexts
from nlp_finetune.data.examples import of_classes
from nlp_finetune.errors import InputError
from nlp_finetune.runtime import say

if TYPE_CHECKING:
    from datasets import Dataset

    from nlp_finetune.preparation import Prepared
    from nlp_finetune.tasks.base import BaseTask

_MANY_CLASSES = 20
_HAS_A_TABLE = ("class_balance", "lengths")
"""Findings that only repeat what a table of the report shows."""
_MEASURED_ROWS = 20_000
"""Lengths are measured on at most this many rows of a split: percentiles need no more."""


@dataclass(frozen=True)
class Section:
    """A titled table of a report."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class DataReport:
    """What the data are like: sizes, balance, lengths, findings, and what simple rivals score."""

    splits: dict[str, int]
    origins: dict[str, str]
    balance: dict[str, dict[str, int]]
    lengths: dict[str, lengths.LengthReport]
    findings: list[checks.Finding]
    baselines: dict[str, dict[str, dict[str, float]]]
    example: list[str]
    examples: dict[str, str]
    example_option: str
    details: dict[str, dict[str, str]]
    cuts_long_rows: bool

    def sections(self) -> list[Section]:
        """Tables for people."""
        parts = [
            Section("Data", ("split", "rows", "from"), [(s, str(n), self.origins[s]) for s, n in self.splits.items()])
        ]
        parts += [self._balance_section()] if self.balance["train"] else []
        rows = [(s, *map(str, r.percentiles.values()), str(r.longest), self._cut(r)) for s, r in self.lengths.items()]
        header = ("split", "50%", "75%", "90%", "95%", "99%", "longest", "")
        parts += [Section("Lengths in tokens", header, rows)] if rows else []
        parts += [Section(title, ("", ""), list(pairs.items())) for title, pairs in self.details.items()]
        found = [(str(f.level), f.message) for f in self.findings if f.code not in _HAS_A_TABLE]
        found = found or [("ok", "nothing found")]
        parts.append(Section("Findings", ("level", "what"), found))
        scores = [
            (split, name, ", ".join(f"{k} {v:.4f}" for k, v in values.items()))
            for split, rivals in self.baselines.items()
            for name, values in rivals.items()
        ]
        return [*parts, Section("Simple rivals", ("split", "rival", "scores"), scores)] if scores else parts

    def _balance_section(self) -> Section:
        train = self.balance["train"]
        total = sum(train.values())
        names = sorted(train, key=lambda name: -train[name])
        rows = [
            (name, *(str(counts.get(name, 0)) for counts in self.balance.values()), f"{train[name] / total:.1%}")
            for name in names[:_MANY_CLASSES]
        ]
        if len(names) > _MANY_CLASSES:
            rows.append((f"... {len(names) - _MANY_CLASSES} more", *("" for _ in self.balance), ""))
        return Section("Labels", ("label", *self.balance, "share of train"), rows)

    def _cut(self, report: checks.LengthReport) -> str:
        """What the longest input costs: tokens, or more windows where these cover long rows."""
        if self.cuts_long_rows or report.now.rows == 0:
            return report.line()
        return f"{lengths.percent(report.now.rows)} of rows are read in windows of {report.now.max_length}"

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return {
            "splits": self.splits,
            "origins": self.origins,
            "labels": self.balance,
            "lengths": {
                name: {
                    "percentiles": {str(k): v for k, v in report.percentiles.items()},
                    "longest": report.longest,
                    "summary": self._cut(report),
                }
                for name, report in self.lengths.items()
            },
            "findings": [{"level": f.level, "code": f.code, "message": f.message} for f in self.findings],
            "baselines": self.baselines,
            "example": self.example,
            "examples": self.examples,
            "example_option": self.example_option,
            "details": self.details,
        }


def data_report(prepared: Prepared, *, strict: bool = False, tell: Callable[[str], None] = say) -> DataReport:
    """Examine the data of a run and say what was found.

    Raises `InputError` for findings that are errors, and with `strict` for warnings too.
    """
    task, rows = prepared.task, prepared.rows
    texts = {name: _texts(prepared, data) for name, data in rows.items()}
    measured = {} if task.images else {name: _lengths(prepared, data) for name, data in rows.items()}
    report = DataReport(
        splits={name: len(data) for name, data in rows.items()},
        origins={name: prepared.loaded.origins.get(name, "held out of train") for name in rows},
        balance={name: checks.balance(t.labels, separator=task.label_separator).counts for name, t in texts.items()},
        lengths=measured,
        findings=checks.examine(
            texts,
            lengths=measured if task.cuts_long_rows else None,
            length_keys=[f"task.{key}" for key in task.length_options],
            separator=task.label_separator,
            unit="image" if task.images else "text",
        )
        + task.findings(rows)
        + task.encoded_findings(prepared.encoded),
        baselines=_baselines(prepared),
        example=_example(task, rows["train"]),
        examples=of_classes(texts["train"], separator=task.label_separator),
        example_option="--image" if task.images else "--text",
        details={**task.details(rows, prepared.processor), **augmenting.details(prepared.recipe.augment)},
        cuts_long_rows=task.cuts_long_rows,
    )
    tell("rows: " + ", ".join(f"{name} {count:,}" for name, count in report.splits.items()))
    for finding in report.findings:
        if finding.level == "warning":
            tell(f"warning: {finding.message}")
    stopping = [f.message for f in report.findings if f.level == "error" or (strict and f.level == "warning")]
    if stopping:
        raise InputError("the data cannot be trained on:\n  " + "\n  ".join(stopping))
    return report


def _baselines(prepared: Prepared) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of simple rivals by split and name, of those that read rows and those that read model inputs.

    Scores that are no numbers (a correlation with constant labels, say) are left out: JSON has none.
    """
    found = prepared.task.baselines(prepared.rows)
    for split, rivals in prepared.task.encoded_baselines(prepared.encoded).items():
        found = {**found, split: {**found.get(split, {}), **rivals}}
    return {
        split: {
            name: {metric: value for metric, value in scores.items() if math.isfinite(value)}
            for name, scores in rivals.items()
        }
        for split, rivals in found.items()
    }


def _example(task: BaseTask, rows: Dataset) -> list[str]:
    """Inputs of a training row that is neither long nor tiny, for a command to paste."""
    first = list(rows.select(range(min(200, len(rows)))))
    return task.row_inputs(min(first, key=lambda row: abs(len(task.row_text(row)) - 60)))


def _texts(prepared: Prepared, rows: Dataset) -> SplitTexts:
    task = prepared.task
    listed = list(rows.remove_columns(list(task.heavy_columns)))
    return SplitTexts(
        texts=[task.row_text(row) for row in listed],
        labels=[task.row_label(row) for row in listed],
        rows=[row["row"] for row in listed],
    )


def _lengths(prepared: Prepared, rows: Dataset) -> lengths.LengthReport:
    import numpy as np

    sample = rows.select(range(min(len(rows), _MEASURED_ROWS)))
    measured = prepared.task.token_lengths(sample[:], prepared.processor)
    limit = getattr(prepared.config, "max_position_embeddings", None)
    return lengths.length_report(np.asarray(measured), prepared.task.max_length, limit=limit)
