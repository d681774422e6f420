"""What is wrong with questions, answers and contexts, as findings of `check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nlp_finetune.data.checks import Finding
from nlp_finetune.data.questions import Report

_SHOWN = 3


def examine(reports: Mapping[str, Report], contexts: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Answers that do not stand where they should, and contexts that several splits share.

    `reports` are by split as it was read, `contexts` by split as it is used.
    """
    findings = []
    for split, report in reports.items():
        findings += _blank(split, report) + _lost(split, report) + _moved(split, report)
    names = list(contexts)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            findings += _shared(first, second, set(contexts[first]), set(contexts[second]))
    return findings


def _blank(split: str, report: Report) -> list[Finding]:
    if not report.blank:
        return []
    remedy = "left out of training" if split == "train" else "scored all the same"
    message = (
        f"{split}: {len(report.blank):,} of {report.rows:,} rows have an empty question or context "
        f"({_rows(report.blank)}): {remedy}"
    )
    return [Finding("warning", "empty_text", message)]


def _lost(split: str, report: Report) -> list[Finding]:
    if not report.lost:
        return []
    message = (
        f"{split}: {len(report.lost):,} of {report.answers:,} answers do not stand at their answer_start, nor once "
        f"elsewhere in the context ({_rows(report.lost)})"
    )
    alone = set(report.unusable) & set(report.lost)
    if not alone:
        return [Finding("note", "answers_not_found", f"{message}; their questions have other answers")]
    remedy = "left out of training" if split == "train" else "scored by the text alone"
    return [Finding("warning", "answers_not_found", f"{message}; {len(alone):,} questions have no other: {remedy}")]


def _moved(split: str, report: Report) -> list[Finding]:
    if not report.moved:
        return []
    message = (
        f"{split}: {len(report.moved):,} of {report.answers:,} answers do not stand at their answer_start "
        f"({_rows(report.moved)}); their text occurs once in the context, and that place is taken"
    )
    return [Finding("note", "answers_moved", message)]


def _shared(first: str, second: str, one: set[str], other: set[str]) -> list[Finding]:
    shared = one & other
    if not shared:
        return []
    message = (
        f"{second}: {len(shared):,} of {len(other):,} contexts are also in {first}; scores on their questions are "
        f"not those of new texts: split by context"
    )
    return [Finding("warning", "shared_contexts", message)]


def _rows(numbers: Sequence[int]) -> str:
    distinct = list(dict.fromkeys(numbers))
    shown = ", ".join(map(str, distinct[:_SHOWN])) + (", ..." if len(distinct) > _SHOWN else "")
    return f"row{'s' if len(distinct) > 1 else ''} {shown}"
