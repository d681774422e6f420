"""Validation sets of whole groups: rows that share a text stay on one side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset


def hold_out(
    rows: Dataset, *, fraction: float, seed: int, group: Callable[[Mapping[str, Any]], str | None]
) -> tuple[Dataset, Dataset] | None:
    """Split off groups until they hold a fraction of the rows: `(what stays, what is held out)`.

    At least one group stays and one is held out; None where there are not two groups, or a row belongs
    to none. The same rows, seed and fraction give the same split; both parts keep the order of the rows.
    """
    groups = _groups(rows, group)
    if groups is None:
        return None
    wanted = fraction * len(rows)
    held_out: list[int] = []
    for i in np.random.default_rng(seed).permutation(len(groups))[:-1]:
        held_out += groups[i]
        if len(held_out) >= wanted:
            break
    stays = np.setdiff1d(np.arange(len(rows)), held_out)
    return rows.select(stays), rows.select(sorted(held_out))


def fold(
    rows: Dataset, *, folds: int, number: int, seed: int, group: Callable[[Mapping[str, Any]], str | None]
) -> tuple[Dataset, Dataset] | None:
    """Hold out one of `folds` parts made of whole groups, that with this `number` (from 1).

    The largest groups are dealt first, each to the part with the fewest rows. None where `hold_out` gives none, or
    there are fewer groups than folds.
    """
    groups = _groups(rows, group)
    if groups is None or len(groups) < folds:
        return None
    shuffled = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    parts: list[list[int]] = [[] for _ in range(folds)]
    for positions in sorted(shuffled, key=len, reverse=True):
        min(parts, key=len).extend(positions)
    held_out = sorted(parts[number - 1])
    return rows.select(np.setdiff1d(np.arange(len(rows)), held_out)), rows.select(held_out)


def _groups(rows: Dataset, group: Callable[[Mapping[str, Any]], str | None]) -> list[list[int]] | None:
    """Positions of the rows of each group; None where there are not two, or a row belongs to none."""
    if group(rows[0]) is None:
        return None
    names = [group(row) for row in rows]
    if None in names or len(set(names)) < 2:
        return None
    positions: dict[str | None, list[int]] = {}
    for position, name in enumerate(names):
        positions.setdefault(name, []).append(position)
    return list(positions.values())
