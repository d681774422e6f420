"""A validation set of whole groups: rows that share a text stay on one side."""

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
    if group(rows[0]) is None:
        return None
    names = [group(row) for row in rows]
    if None in names or len(set(names)) < 2:
        return None
    positions: dict[str | None, list[int]] = {}
    for position, name in enumerate(names):
        positions.setdefault(name, []).append(position)
    groups = list(positions.values())
    wanted = fraction * len(rows)
    held_out: list[int] = []
    for i in np.random.default_rng(seed).permutation(len(groups))[:-1]:
        held_out += groups[i]
        if len(held_out) >= wanted:
            break
    stays = np.setdiff1d(np.arange(len(rows)), held_out)
    return rows.select(stays), rows.select(sorted(held_out))
