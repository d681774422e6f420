"""An order of rows in which every class comes up equally often, whatever its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_STREAM = 2
"""Keeps the numbers drawn here apart from those of the plan of batches."""


@dataclass(frozen=True)
class BalancedClasses:
    """Draw numbers of an epoch: as many as there are rows, the classes in turn.

    Each class is an endless stream of its rows, shuffled anew whenever all of them have come up, and draw `t` of the
    run is the next row of class `t mod classes`. So any stretch of draws is known from its beginning alone, a rare
    class repeats no row before all its others have come, and a large one is seen whole over several epochs. The draw
    number of a row counts how often it has come up before, so that it is changed otherwise each time.
    """

    labels: Sequence[int]
    seed: int

    @cached_property
    def members(self) -> list[np.ndarray]:
        """Positions of the rows of each class that there is."""
        labels = np.asarray(self.labels)
        return [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def epoch(self, number: int) -> np.ndarray:
        """Draw numbers `[rows]` of an epoch, in the order of the classes' turns."""
        rows, classes = len(self.labels), len(self.members)
        turns = np.arange(number * rows, (number + 1) * rows)
        kind, place = turns % classes, turns // classes
        draws = np.empty(rows, dtype=np.int64)
        for one, members in enumerate(self.members):
            mine = np.flatnonzero(kind == one)
            visits, within = np.divmod(place[mine], len(members))
            for visit in np.unique(visits):
                random = np.random.default_rng([self.seed, one, int(visit), _STREAM])
                order = random.permutation(members)
                now = visits == visit
                draws[mine[now]] = visit * rows + order[within[now]]
        return draws

    @property
    def chances(self) -> np.ndarray:
        """How likely each row is to come up, `[rows]`, with a sum of 1."""
        found = np.empty(len(self.labels))
        for members in self.members:
            found[members] = 1 / (len(self.members) * len(members))
        return found

    def times(self) -> list[tuple[int, float]]:
        """For each class one of its rows' labels and how often an epoch sees each row of it."""
        share = len(self.labels) / len(self.members)
        return [(int(self.labels[members[0]]), share / len(members)) for members in self.members]
