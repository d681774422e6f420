"""Stratified subsets: a validation set split off, a smaller training set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

Stratum = Callable[[Mapping[str, Any]], str | None]
"""From a row to the class that keeps its share in every subset, None where rows have no class."""


def hold_out(rows: Dataset, *, fraction: float, seed: int, stratum: Stratum) -> tuple[Dataset, Dataset]:
    """Split off a fraction of the rows, at least one: `(what stays, what is held out)`.

    Every class gives its share; the last row of a class always stays. The same rows, seed and
    fraction give the same split; both parts keep the order of the rows. Raises `InputError` if there
    are not two rows, or for a fraction that is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise InputError(f"A share of rows to hold out must be between 0 and 1, not {fraction}.")
    if len(rows) < 2:
        raise InputError(f"A validation set cannot be split off: there are too few rows ({len(rows)}).")
    groups = _groups(rows, stratum)
    if all(len(group) == 1 for group in groups):
        groups = [np.arange(len(rows))]  # a class a row is no class
    sizes = [len(group) for group in groups]
    count = max(1, min(round(fraction * len(rows)), sum(sizes) - len(sizes)))
    quotas = _shares(sizes, count, least=[0] * len(sizes), most=[size - 1 for size in sizes])
    held_out = _draw(groups, quotas, seed)
    stays = np.setdiff1d(np.arange(len(rows)), held_out)
    return rows.select(stays), rows.select(held_out)


def fold(rows: Dataset, *, folds: int, number: int, seed: int, stratum: Stratum) -> tuple[Dataset, Dataset]:
    """Hold out one of `folds` parts of the rows, that with this `number` (from 1): `(what stays, what is held out)`.

    Parts differ by at most one row, and so does each class between them. The same rows, seed and folds give the same
    parts; both results keep the order of the rows. Raises `InputError` for more folds than rows.
    """
    if folds > len(rows):
        raise InputError(f"data.folds {folds}: there are {len(rows)} training rows.")
    generator = np.random.default_rng(seed)
    dealt = np.concatenate([generator.permutation(group) for group in _groups(rows, stratum)])
    held_out = np.sort(dealt[number - 1 :: folds])
    return rows.select(np.setdiff1d(np.arange(len(rows)), held_out)), rows.select(held_out)


def limit(rows: Dataset, *, count: int, seed: int, stratum: Stratum) -> Dataset:
    """At most `count` of the rows, classes in proportion, each with at least one row if they fit.

    The same rows, seed and count give the same subset, in the order of the rows.
    """
    if count < 1:
        raise InputError(f"data.limit={count}: expected 1 or more rows.")
    if count >= len(rows):
        return rows
    groups = _groups(rows, stratum)
    sizes = [len(group) for group in groups]
    least = [1 if len(sizes) <= count else 0] * len(sizes)
    return rows.select(_draw(groups, _shares(sizes, count, least=least, most=sizes), seed))


def _groups(rows: Dataset, stratum: Stratum) -> list[np.ndarray]:
    """Positions of the rows of each class, classes in the order of their names."""
    by_class: dict[tuple[bool, str], list[int]] = {}
    for position, row in enumerate(_Columns(rows).rows()):
        name = stratum(row)
        by_class.setdefault((name is not None, name or ""), []).append(position)
    return [np.array(by_class[key]) for key in sorted(by_class)]


def _shares(sizes: list[int], count: int, *, least: list[int], most: list[int]) -> list[int]:
    """Whole numbers in proportion to the sizes that add up to `count`, within bounds.

    The largest remainders are rounded up; equal ones in order.
    """
    ideal = [count * size / sum(sizes) for size in sizes]
    shares = [min(max(int(share), low), high) for share, low, high in zip(ideal, least, most, strict=True)]
    while (missing := count - sum(shares)) != 0:
        step = 1 if missing > 0 else -1
        bounds = most if step > 0 else least
        open_groups = [i for i, share in enumerate(shares) if share != bounds[i]]
        open_groups.sort(key=lambda i: step * (shares[i] - ideal[i]))
        for i in open_groups[: abs(missing)]:
            shares[i] += step
    return shares


def _draw(groups: list[np.ndarray], quotas: list[int], seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(group)[:quota] for group, quota in zip(groups, quotas, strict=True)]
    return np.sort(np.concatenate(drawn))


class _Columns:
    """Rows as mappings over whole columns, converted when a row is first asked for them.

    Taking the rows of a data set one by one is some fifty times slower, and decodes columns (images)
    that nobody looks at.
    """

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._values: dict[str, list[Any]] = {}

    def rows(self) -> Iterator[Mapping[str, Any]]:
        return (_Row(self, position) for position in range(len(self._data)))

    def names(self) -> list[str]:
        names: list[str] = self._data.column_names
        return names

    def column(self, name: str) -> list[Any]:
        if name not in self._values:
            if name not in self._data.column_names:
                raise KeyError(name)
            self._values[name] = self._data.with_format(None)[name][:]
        return self._values[name]


class _Row(Mapping[str, Any]):
    def __init__(self, columns: _Columns, position: int) -> None:
        self._columns = columns
        self._position = position

    def __getitem__(self, name: str) -> Any:
        return self._columns.column(name)[self._position]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns.names())

    def __len__(self) -> int:
        return len(self._columns.names())
