"""JSON and JSON lines: one object a row, types kept, every complaint with its line or row number."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from nlp_finetune.data import nested_questions
from nlp_finetune.errors import InputError

_KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def parse(text: str, *, path: str, suffix: str) -> pa.Table:
    """Rows of a list of objects, of `{"data": [...]}`, or of one object a line.

    Keys that a row lacks are null. Raises `InputError` for broken JSON (line), rows that are no
    objects (row), and columns that mix types (column, types, rows).
    """
    rows, where = _rows(text, path=path, lines_expected=suffix in ("jsonl", "ndjson"))
    if not rows:
        raise InputError(f"{path} has no rows: it is an empty list.")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{path}, {where(i)}: expected an object, found {_kind(row)}: {_shown(row)}.")
    names = dict.fromkeys(name for row in rows for name in row)
    if not names:
        raise InputError(f"{path} has rows, but none of them has any keys.")
    return pa.table(
        {name: column(_spans([row.get(name) for row in rows]), name=name, path=path, where=where) for name in names}
    )


def _spans(values: list[Any]) -> list[Any]:
    """Lists of `[start, end, label]`, which spaCy and doccano write, as lists of objects with these keys.

    Such a list mixes types, so Arrow has no other place for it.
    """
    items = [item for value in values if isinstance(value, list) for item in value]
    if not items or not all(
        isinstance(item, list) and [type(part) for part in item] == [int, int, str] for item in items
    ):
        return values
    keys = ("start", "end", "label")
    return [
        [dict(zip(keys, item, strict=True)) for item in value] if isinstance(value, list) else value for value in values
    ]


def column(values: list[Any], *, name: str, path: str, where: Callable[[int], str]) -> pa.Array:
    """Arrow array of one column; `where` says where the value at a position stands."""
    first: dict[str, int] = {}
    for kind in set(map(type, values)) - {type(None)}:
        # Whole numbers among others are numbers; anything else mixed has no common type.
        name_of_kind = "a number" if kind is int and float in map(type, values) else _KINDS[kind]
        position = next(i for i, value in enumerate(values) if type(value) is kind)
        first[name_of_kind] = min(position, first.get(name_of_kind, position))
    if len(first) > 1:
        found = " and ".join(f"{kind} in {where(i)}" for kind, i in sorted(first.items(), key=lambda x: x[1]))
        raise InputError(f"{path}: column '{name}' mixes types: {found}. Give every row the same type.")
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        i = _first_misfit(values)
        problem = "does not fit with those before it" if i else "mixes types"
        raise InputError(
            f"{path}, {where(i)}: the value of column '{name}' {problem}: "
            f"{_shown(values[i])}. Give every row the same structure and types."
        ) from None


def _rows(text: str, *, path: str, lines_expected: bool) -> tuple[list[Any], Callable[[int], str]]:
    """Rows, checked for nothing yet, and how to say where the row at a position stands."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    first = _try(lines[0][1])
    if len(lines) > 1 and (lines_expected or isinstance(first, dict)):
        pretty_printed = first is None and lines[0][1].strip() in ("[", "{")
        if not pretty_printed:
            return _parse_lines(lines, path=path), lambda i: f"line {lines[i][0]}"
    document = _parse_document(text, path=path)
    if nested_questions.is_nested(document):
        return nested_questions.flatten(document, path=path), lambda i: f"question {i + 1}"
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        return document["data"], _row_number
    if isinstance(document, dict) and not (lines_expected or _looks_like_a_row(document)):
        raise InputError(
            f'{path}: expected a list of objects, {{"data": [...]}}, or one object a line; '
            f"found one object with the keys {', '.join(document)[:80]}."
        )
    return document if isinstance(document, list) else [document], _row_number


def _row_number(position: int) -> str:
    return f"row {position + 1}"


def _try(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _parse_lines(lines: Sequence[tuple[int, str]], *, path: str) -> list[Any]:
    rows = []
    for number, line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not valid JSON ({error}): {_shown(line)}.") from None
    return rows


def _parse_document(text: str, *, path: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1]
        raise InputError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}): {_shown(line)}."
        ) from None


def _looks_like_a_row(document: dict[str, Any]) -> bool:
    return bool(document) and not all(isinstance(value, dict | list) for value in document.values())


def _first_misfit(values: list[Any]) -> int:
    """Position of the first value that Arrow cannot put into one array with those before it."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            pa.array(values[:middle])
            low = middle
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            high = middle
    return high - 1


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _shown(value: Any) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True)
    return shown.strip() if len(shown) <= 60 else shown.strip()[:57] + "..."
