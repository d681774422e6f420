"""Questions with options: their columns, the options of each row, and which of them is right.

Canonical rows: `question`, `options` (texts), `names` (what the data call them: A, 1, ...), where there is
one `context`, where labels are known `label` (position of the right option), and `row`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlp_finetune.data import ROW, texts
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

_CONTEXTS = ("context", "article", "passage", "paragraph", "sent1", "ctx_a")
_QUESTIONS = (
    "question", "question_stem", "query", "sent2", "ctx_b", "ctx", "premise", "goal", "stem", "sentence", "falsesent",
    "startphrase", "prompt",
)  # fmt: skip
_LISTS = ("choices", "options", "endings", "candidates", "answers")
_FAMILY = re.compile(r"^(option|choice|ending|answer|solution|sol|alternative|hypothesis|candidate)[ _.-]?([a-z]|\d+)$")
"""Columns that hold one option each: `option_a`, `OptionB`, `ending0`, `choice1`, ..."""
_LABELS = ("label", "labels", "answer", "answerkey", "answer_key", "correct", "target", "gold_label", "gold")
_SEPARATOR = "|"
_FEWEST = 2


@dataclass(frozen=True)
class Columns:
    """Names of the columns: `options` is one that holds lists, or several that hold one option each."""

    context: str | None
    question: str
    options: list[str]
    label: str | None

    @property
    def texts(self) -> list[str]:
        """Columns that hold one text each, besides the options'."""
        return [name for name in (self.context, self.question) if name is not None]

    @property
    def listed(self) -> bool:
        """Whether one column holds all options of a row."""
        return len(self.options) == 1

    @property
    def marks(self) -> dict[str, str]:
        """What the columns of single options call theirs, by column; none where one column lists all."""
        return {} if self.listed else {name: _mark(name, i) for i, name in enumerate(self.options)}


@dataclass(frozen=True)
class Options:
    """The options of a row that are there, and what the data call each."""

    texts: list[str]
    names: list[str]


def find(
    data: Dataset, *, context: str | None, question: str | None, options: Sequence[str] | None, label: str | None
) -> Columns:
    """The columns asked for, else those with usual names; a context only where nothing else was asked for.

    Raises `InputError` listing the columns.
    """
    for key, names in (
        ("context", [context]),
        ("question", [question]),
        ("options", options or []),
        ("label", [label]),
    ):
        for name in names:
            if name is not None and name not in data.column_names:
                raise InputError(f"task.{key}: no column {name!r}. {texts.describe_columns(data)}")
    by_name = {name.strip().lower(): name for name in data.column_names}
    chosen = list(options) if options else _find_options(data)
    free = {lower: name for lower, name in by_name.items() if name not in (*chosen, label, context)}
    if question is None:
        if context is None:
            context = next((free.pop(name) for name in _CONTEXTS if name in free), None)
        question = next((free[name] for name in _QUESTIONS if name in free), None)
        if question is None and context is not None and label != context:
            question, context = context, None  # what is asked about is all there is
    if question is None:
        raise InputError(f"No question column found by name. {texts.describe_columns(data)} Set task.question=COLUMN.")
    taken = (*chosen, question, context)
    if label is None:
        label = next((by_name[name] for name in _LABELS if name in by_name and by_name[name] not in taken), None)
    return Columns(context, question, chosen, label)


def _find_options(data: Dataset) -> list[str]:
    families: dict[str, list[tuple[Any, str]]] = {}
    for name in data.column_names:
        lower = name.strip().lower()
        if lower not in _LISTS and (match := _FAMILY.match(lower)):
            mark = match.group(2)
            families.setdefault(match.group(1), []).append((int(mark) if mark.isdigit() else mark, name))
    found = [sorted(members, key=lambda one: str(one[0]).zfill(4)) for members in families.values() if len(members) > 1]
    if found:
        return [name for _, name in max(found, key=len)]
    by_name = {name.strip().lower(): name for name in data.column_names}
    for name in _LISTS:
        if name in by_name:
            return [by_name[name]]
    raise InputError(
        f"No options found by name. {texts.describe_columns(data)} "
        "Set task.options=[COLUMN] of lists, or task.options=[COLUMN, COLUMN, ...] with one option each."
    )


def read(data: Dataset, columns: Columns, split: str) -> dict[str, list[Any]]:
    """Canonical columns but for `label`.

    Raises `InputError` where a column is absent, a text is missing, or a row has fewer than two options.
    """
    found = texts.read(data, [columns.question], split)
    read_columns = {ROW: found[ROW], "question": found["text"]}
    if columns.context is not None:
        read_columns["context"] = texts.read(data, [columns.context], split)["text"]
    rows = options_of(data, columns, split)
    for row, options in zip(found[ROW], rows, strict=True):
        if isinstance(options, str):
            raise InputError(f"{split}: row {row}: {options}.")
    return {**read_columns, "options": [o.texts for o in rows], "names": [o.names for o in rows]}  # type: ignore[union-attr]


def options_of(data: Dataset, columns: Columns, split: str) -> list[Options | str]:
    """Options of each row, or what is wrong with them; raises `InputError` where a column is absent."""
    missing = [name for name in columns.options if name not in data.column_names]
    if missing:
        raise InputError(f"{split}: no column of options {missing[0]!r}. {texts.describe_columns(data)}")
    if columns.listed:
        return [_checked(_from_list(value), columns) for value in data[columns.options[0]][:]]
    marks = list(columns.marks.values())
    cells = zip(*(data[name][:] for name in columns.options), strict=True)
    return [_checked(_present(list(row), marks), columns) for row in cells]


def _checked(options: Options | None, columns: Columns) -> Options | str:
    where = f"column {columns.options[0]!r}" if columns.listed else f"columns {', '.join(columns.options)}"
    if options is None:
        return f"{where}: not a list of texts"
    if len(options.texts) < _FEWEST:
        return f"{where}: {'one option' if options.texts else 'no options'}, and at least two are needed"
    return options


def _mark(column: str, position: int) -> str:
    """What a column calls its option: the letter or number at the end of its name, else a letter by position."""
    match = _FAMILY.match(column.strip().lower())
    return match.group(2).upper() if match else _letter(position)


def _letter(position: int) -> str:
    return chr(ord("A") + position) if position < 26 else str(position + 1)


def _present(values: list[Any], names: list[str]) -> Options:
    """The options that are not blank, each with its own name."""
    kept = [
        (str(value).strip(), name)
        for value, name in zip(values, names, strict=True)
        if not texts.is_missing(value) and str(value).strip()
    ]
    return Options([value for value, _ in kept], [name for _, name in kept])


def _from_list(value: Any) -> Options | None:
    """Options of a cell: a list, `{"label": [...], "text": [...]}`, a list of those, or a text `a|b` or JSON."""
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {key: [item.get(key) for item in value] for key in ("label", "text")}
    if isinstance(value, dict):
        shown, names = value.get("text"), value.get("label")
        if not isinstance(shown, list):
            return None
        if not isinstance(names, list) or len(names) != len(shown) or any(map(texts.is_missing, names)):
            names = [_letter(i) for i in range(len(shown))]
        return _present(shown, [str(name) for name in names])
    if not isinstance(value, list) or any(isinstance(item, list | dict) for item in value):
        return None
    return _present(value, [_letter(i) for i in range(len(value))])


def _parsed(text: str) -> Any:
    if text.lstrip().startswith(("[", "{")):
        try:
            return json.loads(text)
        except ValueError:
            return None
    return text.split(_SEPARATOR)
