"""Rows as they are drawn: each changed at random, the same way wherever and whenever it is drawn again.

Masking and augmentation are pure functions `(example, generator) -> example`. The generator of a draw
is keyed by (seed, epoch, row) and by nothing else, so that engines, processes, workers and a resumed
run change a row alike, and the global random state is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nlp_finetune.data.mixing import Mixing

ROW = "row_number"
"""Key of a row under which its position stands, where rows are numbered."""

Transform = Callable[[Mapping[str, Any], np.random.Generator], dict[str, Any]]
"""Changes a row at random; draws only from the generator it is given and leaves the row as it is."""


def generator(seed: int, epoch: int, row: int) -> np.random.Generator:
    """Random numbers of one row in one epoch; `row` is its position."""
    return np.random.default_rng([seed, epoch, row])


def apply(
    transform: Transform | None, rows: Sequence[Mapping[str, Any]], positions: Sequence[int], *, seed: int, epoch: int
) -> list[dict[str, Any]]:
    """Rows of one epoch, changed; `positions` says where in the data each of them stands."""
    if transform is None:
        return [dict(row) for row in rows]
    return [transform(row, generator(seed, epoch, at)) for row, at in zip(rows, positions, strict=True)]


class DrawnRows:
    """Training rows by draw number: draw `epoch * len(rows) + row` is that row as that epoch sees it.

    `BatchPlan.sampler` gives draw numbers. Numbers below `len(rows)` are the first epoch's. `numbered` rows carry their
    position. With `mixing` each has its `mix` and, as the same epoch sees it, its `partner`.
    """

    def __init__(
        self,
        rows: Any,
        *,
        transform: Transform | None = None,
        seed: int = 0,
        numbered: bool = False,
        mixing: Mixing | None = None,
    ) -> None:
        self.rows = rows
        self.transform = transform
        self.seed = seed
        self.numbered = numbered
        self.mixing = mixing

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: int) -> dict[str, Any]:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[int]) -> list[dict[str, Any]]:
        """Several draws with one read of the data; what a `DataLoader` calls."""
        if self.mixing is None:
            return self._drawn(draws)
        places = [divmod(int(draw), len(self.rows)) for draw in draws]
        mixes = [self.mixing.of(epoch, row) for epoch, row in places]
        partners = [epoch * len(self.rows) + mix.partner for (epoch, _), mix in zip(places, mixes, strict=True)]
        both = self._drawn([*draws, *partners])
        own, others = both[: len(draws)], both[len(draws) :]
        return [{**row, "mix": mix, "partner": other} for row, mix, other in zip(own, mixes, others, strict=True)]

    def _drawn(self, draws: Sequence[int]) -> list[dict[str, Any]]:
        places = [divmod(int(draw), len(self.rows)) for draw in draws]
        read = getattr(self.rows, "__getitems__", None)
        positions = [row for _, row in places]
        found = read(positions) if read is not None else [self.rows[row] for row in positions]
        drawn = [
            apply(self.transform, [example], [row], seed=self.seed, epoch=epoch)[0]
            for example, (epoch, row) in zip(found, places, strict=True)
        ]
        return [{**row, ROW: at} for row, at in zip(drawn, positions, strict=True)] if self.numbered else drawn
