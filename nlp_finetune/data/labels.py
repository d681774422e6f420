"""Label columns: finding them, learning what kind of problem they pose, reading them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nlp_finetune.data import ROW
from nlp_finetune.data.texts import describe_columns, is_missing
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

Problem = Literal["single_label", "multi_label", "regression"]
Column = str | Sequence[str]

_NAMES = (
    "label", "labels", "class", "category", "target", "sentiment", "score", "rating", "stars", "intent", "topic",
    "emotion", "emotions", "gold_label", "similarity", "quality", "y",
)  # fmt: skip
_MANY_CLASSES = 150
_SEPARATOR = "|"


@dataclass(frozen=True)
class Learned:
    """What the label column says: kind of problem, class names in order, and a line that tells it."""

    problem: Problem
    names: list[str]
    summary: str


def find(data: Dataset, asked: Column | None, *, taken: Sequence[str]) -> str | list[str]:
    """Name of the label column (or names of 0/1 columns): asked for, else found by usual names.

    Raises `InputError` listing the columns.
    """
    if asked is not None:
        wanted = [asked] if isinstance(asked, str) else list(asked)
        missing = [name for name in wanted if name not in data.column_names]
        if missing:
            raise InputError(f"task.label: no column {missing[0]!r}. {describe_columns(data)}")
        return asked if isinstance(asked, str) else wanted
    free = [name for name in data.column_names if name != ROW and name not in taken]
    by_name = {name.strip().lower(): name for name in free}
    for name in _NAMES:
        if name in by_name:
            return str(by_name[name])
    if len(free) == 1:
        return str(free[0])
    raise InputError(f"No label column found by name. {describe_columns(data)} Set task.label=COLUMN.")


def has_labels(data: Dataset, column: Column) -> bool:
    """Whether a split has the label column with anything in it (a test file may have none)."""
    names = [column] if isinstance(column, str) else list(column)
    if any(name not in data.column_names for name in names):
        return False
    return any(not _is_blank(value) for value in data[names[0]])


def learn(splits: Mapping[str, Dataset], column: Column, *, problem: Problem | None) -> Learned:
    """Learn problem kind and class names from the labels of all splits that have some.

    `problem` overrules the inference. Raises `InputError` for labels that fit no kind.
    """
    if not isinstance(column, str):
        return Learned("multi_label", list(column), f"{len(column)} columns of 0/1 -> multi-label")
    named = _feature_names(splits["train"], column)
    values: list[Any] = []
    for split, data in splits.items():
        cells = list(data[column])
        _refuse_missing(data, cells, column, split, problem)
        values += cells
    if any(isinstance(value, list) for value in values):
        return _learn_lists(values, named)
    if named is not None:
        return _single(named, "class names of the data set")
    return _learn_scalars(values, column, problem)


def _learn_scalars(values: list[Any], column: str, problem: Problem | None) -> Learned:
    kinds = {type(value).__name__ for value in values}
    if len(kinds) > 1 and kinds != {"int", "float"}:
        raise InputError(f"label column {column!r} mixes types: {', '.join(sorted(kinds))}. Use one.")
    texts = [str(value) for value in values]
    if problem == "multi_label" or (problem is None and any(_SEPARATOR in text for text in texts)):
        return _multi(sorted({p for t in texts for p in _pieces(t)}), f'strings "a{_SEPARATOR}b"')
    numbers = _as_numbers(values)
    if problem == "regression":
        if numbers is None:
            bad = next(text for text in texts if _number(text) is None)
            raise InputError(f"task.problem=regression, but label column {column!r} holds {bad!r}.")
        return Learned("regression", [], _range(numbers))
    whole = numbers is not None and all(number.is_integer() for number in numbers)
    if numbers is not None and not whole and problem is None:
        return Learned("regression", [], _range(numbers))
    names = sorted(set(texts))
    if numbers is not None:
        names = sorted(_as_class(texts), key=float)
        kind = "numbers"
    else:
        kind = "booleans" if kinds == {"bool"} else "strings"
    if len(names) > max(_MANY_CLASSES, len(values) // 5) and problem is None:
        raise InputError(
            f"label column {column!r} has {len(names)} different values in {len(values)} rows: classes or numbers? "
            "Set task.problem=single_label or task.problem=regression, or name another column with task.label."
        )
    return _single(names, kind)


def _single(names: list[str], kind: str) -> Learned:
    if len(names) < 2:
        raise InputError(
            f"only one class ({names[0] if names else 'none'}) in the labels: there is nothing to learn. "
            "Check task.label, or set task.problem=regression for numbers."
        )
    return Learned("single_label", names, f"{len(names)} classes, {kind} -> text_classification, single label")


def _multi(names: list[str], kind: str) -> Learned:
    if not names:
        raise InputError("multi-label data without a single label: check task.label.")
    return Learned("multi_label", names, f"{len(names)} classes, {kind} -> text_classification, multi-label")


def _range(numbers: list[float]) -> str:
    return f"numbers from {min(numbers):g} to {max(numbers):g} -> text_classification, regression"


def _learn_lists(values: list[Any], named: list[str] | None) -> Learned:
    if named is not None:
        return _multi(named, "lists of the data set's classes")
    if _is_one_hot(values):
        return _multi([str(i) for i in range(len(values[0]))], "one-hot lists")
    items = {str(item) for value in values for item in value or []}
    numeric = all(_number(item) is not None for item in items)
    return _multi(sorted(items, key=float) if numeric else sorted(items), "lists")


def _is_one_hot(values: list[Any]) -> bool:
    widths = {len(value) for value in values}
    cells = {cell for value in values for cell in value}
    return len(widths) == 1 and widths != {1} and cells <= {0, 1} and any(sum(v) != 1 or len(v) > 2 for v in values)


def _feature_names(data: Dataset, column: str) -> list[str] | None:
    """Class names that the data set itself declares."""
    feature = data.features[column]
    feature = getattr(feature, "feature", feature)
    names = getattr(feature, "names", None)
    return list(names) if names else None


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _as_numbers(values: list[Any]) -> list[float] | None:
    if any(isinstance(value, bool) for value in values):
        return None
    numbers = [_number(value) for value in values]
    return [n for n in numbers if n is not None] if None not in numbers else None


def _as_class(texts: list[str]) -> list[str]:
    """Distinct class names; floats that are whole ("1.0") lose their fraction where all have one."""
    whole = all(text.endswith(".0") for text in texts)
    return sorted({text[:-2] if whole else text for text in texts})


def _pieces(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(_SEPARATOR) if piece.strip()]


def _is_blank(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, str) and not value.strip())


def _refuse_missing(data: Dataset, cells: list[Any], column: str, split: str, problem: Problem | None) -> None:
    separated = problem == "multi_label" or any(isinstance(c, str) and _SEPARATOR in c for c in cells)
    bad = [
        row
        for row, cell in zip(data[ROW], cells, strict=True)
        if is_missing(cell) or (_is_blank(cell) and not separated)
    ]
    if bad:
        raise InputError(
            f"{split}: label column {column!r} is empty in {len(bad)} of {len(cells)} rows (first: row {bad[0]}). "
            "Fill or remove these rows."
        )


def read(
    data: Dataset, column: Column, split: str, *, problem: Problem, names: Sequence[str]
) -> list[int] | list[float] | list[list[float]]:
    """Labels as numbers: class indices, numbers, or 0/1 lists `[classes]`.

    Raises `InputError` naming split, row and value for a label that is not among `names`.
    """
    missing = [c for c in ([column] if isinstance(column, str) else column) if c not in data.column_names]
    if missing:
        raise InputError(f"{split}: no label column {missing[0]!r}. {describe_columns(data)}")
    rows = list(data[ROW])
    if not isinstance(column, str):
        table = [[_flag(cell, split, row, name) for cell, row in zip(data[name], rows, strict=True)] for name in column]
        return [list(row) for row in zip(*table, strict=True)]
    cells = list(data[column])
    _refuse_missing(data, cells, column, split, problem)
    if problem == "regression":
        return [_read_number(cell, split, row, column) for cell, row in zip(cells, rows, strict=True)]
    declared = _feature_names(data, column)
    index = _index(names)
    if problem == "multi_label":
        sets = [_label_set(cell, declared, len(names)) for cell in cells]
        return [_one_hot(found, index, split, row) for found, row in zip(sets, rows, strict=True)]
    return [_class(_named(cell, declared), index, split, row) for cell, row in zip(cells, rows, strict=True)]


def _index(names: Sequence[str]) -> dict[str, int]:
    """Position by name; whole floats ("1.0") find the class "1"."""
    index = {name: i for i, name in enumerate(names)}
    return {**{f"{name}.0": i for name, i in index.items() if name.lstrip("-").isdigit()}, **index}


def _named(cell: Any, declared: list[str] | None) -> str:
    return declared[cell] if declared is not None and isinstance(cell, int) and cell >= 0 else str(cell)


def _class(name: str, index: Mapping[str, int], split: str, row: int) -> int:
    if name not in index:
        raise InputError(f"{split}: row {row} has the label {name!r}, which is none of {', '.join(list(index)[:10])}.")
    return index[name]


def _label_set(cell: Any, declared: list[str] | None, width: int) -> list[str] | list[int]:
    if isinstance(cell, list):
        if (
            declared is None
            and len(cell) == width > 1
            and set(cell) <= {0, 1}
            and all(type(c) is not str for c in cell)
        ):
            return [i for i, on in enumerate(cell) if on]
        return [_named(item, declared) for item in cell]
    return _pieces(str(cell))


def _one_hot(found: Sequence[Any], index: Mapping[str, int], split: str, row: int) -> list[float]:
    labels = [0.0] * (max(index.values()) + 1)
    for name in found:
        labels[name if isinstance(name, int) else _class(name, index, split, row)] = 1.0
    return labels


def _flag(cell: Any, split: str, row: int, column: str) -> float:
    number = _number({"true": 1, "false": 0}.get(str(cell).strip().lower(), cell))
    if number not in (0.0, 1.0):
        raise InputError(f"{split}: row {row}, column {column!r} holds {cell!r}; label columns hold 0 or 1.")
    return float(number)


def _read_number(cell: Any, split: str, row: int, column: str) -> float:
    number = _number(cell)
    if number is None:
        raise InputError(f"{split}: row {row}, column {column!r} holds {cell!r}, which is not a number.")
    return number


def counts(labels: Sequence[str | None]) -> Counter[str]:
    """How often each label occurs."""
    return Counter(label for label in labels if label is not None)
