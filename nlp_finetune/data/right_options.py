"""Which option is right: how a label column names it, learned from all rows and applied to each.

One way of naming holds for a whole data set, so that a label is never read differently from row to row:

    name     what the data call the option: A, 1, a column's name or the letter at its end
    text     the option's own text
    from 0   its position, counted from 0
    from 1   its position, counted from 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlp_finetune.data import ROW, texts
from nlp_finetune.data.choices import Columns
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

WAYS = ("name", "text", "from 0", "from 1")
Cells = Mapping[str, Sequence[Any]]
_UNLABELLED = ("", "-1")


def has_labels(data: Dataset, column: str | None) -> bool:
    """Whether any row says which option is right: test files have none, or -1."""
    return column is not None and column in data.column_names and not all(map(_is_blank, data[column][:]))


def learn(labels: Mapping[str, Sequence[Any]], rows: Mapping[str, Cells], columns: Columns) -> str:
    """The first way of `WAYS` by which every label of every split names exactly one option of its row.

    `rows` are canonical columns. Raises `InputError` naming a row where no way fits all of them.
    """
    pairs = [(split, i, cell) for split, cells in labels.items() for i, cell in enumerate(cells) if not _is_blank(cell)]
    hits = {}
    for way in WAYS:
        misses = [p for p in pairs if position(p[2], way, _row(rows[p[0]], p[1]), columns) is None]
        if not misses:
            return way
        hits[way] = misses
    best = min(hits, key=lambda way: len(hits[way]))
    split, i, cell = hits[best][0]
    options = " | ".join(rows[split]["options"][i])
    raise InputError(
        f"{split}: row {rows[split][ROW][i]}: the label {cell!r} of column {columns.label!r} names none, or several, "
        f"of its options ({options}). A label is the option's letter, its number from 0 or from 1 (the same in all "
        f"rows), or its text."
    )


def read(cells: Sequence[Any], rows: Cells, columns: Columns, split: str, *, way: str) -> list[int]:
    """Position of the right option of each row; raises `InputError` naming the row of a label that fits none."""
    found = []
    for i, cell in enumerate(cells):
        if _is_blank(cell):
            raise InputError(
                f"{split}: row {rows[ROW][i]} has no label in column {columns.label!r}. Fill or remove it."
            )
        at = position(cell, way, _row(rows, i), columns)
        if at is None:
            raise InputError(
                f"{split}: row {rows[ROW][i]}: the label {cell!r} of column {columns.label!r} is none of its options "
                f"({' | '.join(rows['options'][i])}); labels of this run are given by {way}."
            )
        found.append(at)
    return found


def position(cell: Any, way: str, row: Mapping[str, Any], columns: Columns) -> int | None:
    """Position of the option that a label names in one way; None if it is none, or not only one."""
    label = str(cell).strip()
    if way in ("from 0", "from 1"):
        number = float(label) if _is_number(label) else -1.0
        at = int(number) - (way == "from 1")
        return at if number.is_integer() and 0 <= at < len(row["options"]) else None
    if way == "name":
        wanted = columns.marks.get(label, label).casefold()
        candidates = [name.casefold() for name in row["names"]]
    else:
        wanted, candidates = label, row["options"]
    hits = [i for i, candidate in enumerate(candidates) if candidate == wanted]
    return hits[0] if len(hits) == 1 else None


def written(at: int, way: str, row: Mapping[str, Any]) -> Any:
    """The label that `position` reads as `at`: what a user's data would say."""
    if way in ("from 0", "from 1"):
        return at + (way == "from 1")
    if way == "text":
        return row["options"][at]
    return row["names"][at]


def _row(rows: Cells, i: int) -> dict[str, Any]:
    return {name: values[i] for name, values in rows.items()}


def _is_number(label: str) -> bool:
    return label.replace(".", "", 1).isdecimal()


def _is_blank(cell: Any) -> bool:
    return texts.is_missing(cell) or str(cell).strip() in _UNLABELLED
