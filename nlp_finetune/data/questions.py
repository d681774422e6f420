"""Questions over contexts: their columns, and gold answers checked against the context.

Canonical rows: `question`, `context`, and where labels are known `answers` (list of gold texts, empty
where the context holds no answer) and `starts` (character position of each, -1 where it is not known).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nlp_finetune.data import ROW, texts
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

UNKNOWN = -1
"""Start of an answer that is not found in its context."""
_NAMES = {
    "question": ("question", "query"),
    "context": ("context", "passage", "paragraph", "document", "text"),
    "answers": ("answers", "answer"),
}
_IMPOSSIBLE = "is_impossible"
_EXPECTED = '{"text": [...], "answer_start": [...]}, both empty where there is no answer'


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold questions, contexts and answers."""

    question: str
    context: str
    answers: str


@dataclass
class Report:
    """What checking answers against their positions found: row numbers, one for each answer or question.

    `blank` are rows whose question or context has no visible character; `moved` answers stood
    elsewhere, exactly once; `lost` ones are not in the context, or in several other places;
    `unusable` are rows that nothing can be learned from, because they are blank or all answers are lost.
    """

    rows: int = 0
    answers: int = 0
    blank: list[int] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    unusable: list[int] = field(default_factory=list)


def find(data: Dataset, *, question: str | None, context: str | None, answers: str | None) -> Columns:
    """The columns asked for, else those with usual names; raises `InputError` listing the columns."""
    asked = {"question": question, "context": context, "answers": answers}
    return Columns(**{kind: _find(data, kind, name) for kind, name in asked.items()})


def _find(data: Dataset, kind: str, asked: str | None) -> str:
    if asked is not None:
        if asked not in data.column_names:
            raise InputError(f"task.{kind}: no column {asked!r}. {texts.describe_columns(data)}")
        return asked
    by_name = {name.strip().lower(): name for name in data.column_names}
    found: str | None = next((by_name[name] for name in _NAMES[kind] if name in by_name), None)
    if found is None:
        raise InputError(f"No {kind} column found by name. {texts.describe_columns(data)} Set task.{kind}=COLUMN.")
    return found


def has_answers(data: Dataset, columns: Columns) -> bool:
    """Whether any row is labelled: has answers, or says that there are none."""
    return columns.answers in data.column_names and any(value is not None for value in data[columns.answers][:])


def read(data: Dataset, columns: Columns, split: str, *, labelled: bool) -> tuple[dict[str, list[Any]], Report]:
    """Canonical columns, and what was found out about the answers.

    Raises `InputError` naming split, row and column for a missing question or context (None, not
    merely empty), and for answers of another form.
    """
    rows: dict[str, list[Any]] = {ROW: data[ROW][:]}
    for kind in ("question", "context"):
        rows[kind] = _read_texts(data, getattr(columns, kind), split, rows[ROW])
    report = Report(rows=len(data))
    for row, question, context in zip(rows[ROW], rows["question"], rows["context"], strict=True):
        if not question.strip() or not context.strip():
            report.blank.append(row)
            report.unusable.append(row)
    if labelled:
        golds = _read_answers(data, columns.answers, split, rows[ROW])
        located = [
            _locate(context, gold, row, report)
            for row, context, gold in zip(rows[ROW], rows["context"], golds, strict=True)
        ]
        rows["answers"] = [[text for text, _ in row] for row in located]
        rows["starts"] = [[start for _, start in row] for row in located]
    return rows, report


def _read_texts(data: Dataset, name: str, split: str, numbers: Sequence[int]) -> list[str]:
    if name not in data.column_names:
        raise InputError(f"{split}: no column {name!r}. {texts.describe_columns(data)}")
    values: list[str] = data[name][:]  # a slice: going through a column row by row is many times slower
    bad = [row for row, value in zip(numbers, values, strict=True) if not isinstance(value, str)]
    if bad:
        raise InputError(
            f"{split}: column {name!r} has no text in {len(bad)} of {len(values)} rows "
            f"(first: row {bad[0]}). Fill or remove them."
        )
    return values


def _read_answers(data: Dataset, name: str, split: str, numbers: Sequence[int]) -> list[list[tuple[str, int]]]:
    """Texts and claimed starts of each row's gold answers."""
    if name not in data.column_names:
        raise InputError(f"{split}: no column {name!r} with answers. {texts.describe_columns(data)}")
    values = data[name][:]
    impossible = data[_IMPOSSIBLE][:] if _IMPOSSIBLE in data.column_names else [None] * len(values)
    found = []
    for row, value, never in zip(numbers, values, impossible, strict=True):
        where = f"{split}, row {row}: column {name!r}"
        # SQuAD 2 gives some of these questions answers that are plausible and wrong.
        found.append([] if never is True else _pairs(value, where))
    return found


def _pairs(value: Any, where: str) -> list[tuple[str, int]]:
    """Texts and starts of one row's answers; a start that is not given is `UNKNOWN`."""
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        value = {key: [part.get(key) for part in value] for key in ("text", "answer_start")}
    if not isinstance(value, dict) or "text" not in value:
        shown = "nothing" if value is None else repr(value)[:60]
        raise InputError(f"{where} holds {shown}; expected {_EXPECTED}.")
    listed = [[part] if isinstance(part, str | int) else part for part in (value["text"], value.get("answer_start"))]
    found, starts = listed[0] or [], listed[1]
    if starts is None:
        starts = [None] * len(found)
    if not isinstance(found, list) or not isinstance(starts, list) or len(found) != len(starts):
        raise InputError(f"{where} has not as many answer_start as text; expected {_EXPECTED}.")
    pairs = []
    for text, start in zip(found, starts, strict=True):
        if not isinstance(text, str | None) or not isinstance(start, int | None) or isinstance(start, bool):
            raise InputError(f"{where}: text must be texts and answer_start whole numbers; expected {_EXPECTED}.")
        if text is not None and text.strip():
            pairs.append((text, UNKNOWN if start is None else start))
    return pairs


def _locate(context: str, pairs: Sequence[tuple[str, int]], row: int, report: Report) -> list[tuple[str, int]]:
    """Answers without white space around them, each at its start in the context or at `UNKNOWN`."""
    located = []
    for text, claimed in pairs:
        stripped = text.strip()
        start = claimed + text.index(stripped)
        if claimed < 0 or not context.startswith(stripped, start):
            first = context.find(stripped)
            once = first >= 0 and context.find(stripped, first + 1) < 0
            start = first if once else UNKNOWN
            # A start that was never given is no mistake.
            if not once:
                report.lost.append(row)
            elif claimed != UNKNOWN:
                report.moved.append(row)
        located.append((stripped, start))
    report.answers += len(located)
    if located and all(start == UNKNOWN for _, start in located):
        report.unusable.append(row)
    return located
