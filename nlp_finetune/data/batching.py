"""The plan of batches: which rows make up which micro batch of which optimizer step.

The plan is ours and the same everywhere: for one seed, every engine, every number of processes and
every micro batch size sees the same rows in the same optimizer step.

    epoch order      a seeded permutation, bucketed by length: shuffled, cut into pools, each pool
                     sorted by length, cut into batches, and the batches shuffled
    global batch     exactly `batch_size` rows; rows left at the end of an epoch open the next, so the
                     epochs form one stream
    micro batches    each global batch, sorted by length, is dealt into `accumulation x processes`
                     pieces whose sizes differ by at most one row
    draws            what the sampler gives: `epoch * rows + row`, so that `drawing.DrawnRows` can change
                     a row in each epoch anew; of balanced classes, how often the row has come up takes the
                     epoch's place
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nlp_finetune.data import token_budget
from nlp_finetune.data.balancing import BalancedClasses

_POOL_BATCHES = 50
"""Batches in a pool that is sorted by length: long enough to save padding, short enough to keep chance."""


@dataclass(frozen=True)
class BatchPlan:
    """Rows of every micro batch, computed on demand.

    `lengths` holds one length (tokens) a row; `micro_batches` is the number of micro batches that one
    process runs in one optimizer step (gradient accumulation). `steps` optimizer steps are planned. With
    `balanced` an epoch has as many rows as ever, its classes equally often. With `max_tokens` each step has as
    many micro batches as it takes for none to have more tokens, padding counted where they are `padded`.
    """

    lengths: Sequence[int]
    batch_size: int
    steps: int
    seed: int
    processes: int = 1
    micro_batches: int = 1
    bucket: bool = True
    balanced: BalancedClasses | None = None
    max_tokens: int | None = None
    padded: bool = True
    _epochs: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.batch_size > len(self.lengths):
            raise ValueError(f"batch_size {self.batch_size} exceeds the {len(self.lengths)} rows")
        if self.processes * self.micro_batches > self.batch_size:
            raise ValueError(f"{self.processes} processes x {self.micro_batches} micro batches exceed the batch")

    @property
    def rows(self) -> int:
        """Rows in one epoch."""
        return len(self.lengths)

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps in one epoch; a fraction where the batch size does not divide the rows."""
        return self.rows / self.batch_size

    def epoch_at(self, step: int) -> float:
        """Epochs completed after `step` optimizer steps."""
        return step * self.batch_size / self.rows

    def ends_epoch(self, step: int) -> bool:
        """Whether the epoch's last row is seen in the optimizer step that makes it `step` steps."""
        return math.floor(self.epoch_at(step)) > math.floor(self.epoch_at(step - 1))

    def epoch_order(self, epoch: int) -> np.ndarray:
        """Row positions of one epoch in the order in which they are seen."""
        return self._epoch_draws(epoch) % self.rows

    def _epoch_draws(self, epoch: int) -> np.ndarray:
        """Draw numbers of the same."""
        if epoch not in self._epochs:
            self._epochs.clear()  # one stream, read forwards: only the newest epochs are needed
            for number in (epoch, epoch + 1):
                self._epochs[number] = self._shuffled(number)
        return self._epochs[epoch]

    def _shuffled(self, epoch: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, epoch])
        if self.balanced is None:
            order = epoch * self.rows + random.permutation(self.rows)
        else:
            order = random.permutation(self.balanced.epoch(epoch))
        if not self.bucket:
            return order
        lengths = np.asarray(self.lengths)
        pool = self.batch_size * _POOL_BATCHES
        batches: list[np.ndarray] = []
        for start in range(0, self.rows, pool):
            draws = order[start : start + pool]
            draws = draws[np.argsort(lengths[draws % self.rows], kind="stable")]
            batches += [draws[i : i + self.batch_size] for i in range(0, len(draws), self.batch_size)]
        # A short batch anywhere but at the end would shift all later cuts through the buckets.
        short = [b for b in batches if len(b) < self.batch_size]
        full = [b for b in batches if len(b) == self.batch_size]
        shuffled = [full[i] for i in random.permutation(len(full))]
        return np.concatenate([*shuffled, *short])

    def global_batch(self, step: int) -> np.ndarray:
        """Row positions of optimizer step `step` (0-based), `batch_size` of them."""
        return self._draws(step) % self.rows

    def _draws(self, step: int) -> np.ndarray:
        start = step * self.batch_size
        parts = []
        wanted = self.batch_size
        while wanted:
            epoch, offset = divmod(start, self.rows)
            part = self._epoch_draws(epoch)[offset : offset + wanted]
            parts.append(part)
            start += len(part)
            wanted -= len(part)
        return np.concatenate(parts)

    def micro_batch_rows(self, step: int, process: int) -> list[np.ndarray]:
        """Row positions of the micro batches of one process in one optimizer step."""
        return [draws % self.rows for draws in self.micro_batch_draws(step, process)]

    def micro_batch_draws(self, step: int, process: int) -> list[np.ndarray]:
        """Draw numbers of the same."""
        draws = self._draws(step)
        if self.bucket or self.max_tokens is not None:
            draws = draws[np.argsort(np.asarray(self.lengths)[draws % self.rows], kind="stable")]
        pieces = self._cut(draws)
        # Neighbouring pieces (of like length) go to different processes, so that none waits for another.
        return pieces[process :: self.processes]

    def _cut(self, draws: np.ndarray) -> list[np.ndarray]:
        if self.max_tokens is None:
            return np.array_split(draws, self.micro_batches * self.processes)
        lengths = np.asarray(self.lengths)[draws % self.rows].tolist()
        rows = token_budget.pieces(lengths, most=self.max_tokens, processes=self.processes, padded=self.padded)
        return np.split(draws, np.cumsum(rows)[:-1])

    def sampler(self, process: int) -> ProcessBatches:
        """All micro batches of one process, as a batch sampler for a `DataLoader` over `DrawnRows`."""
        return ProcessBatches(self, process)

    def padding_fraction(self, steps: int) -> float:
        """Share of padding among the tokens of the first `steps` steps; 0 where there are none."""
        lengths = np.asarray(self.lengths)
        real = padded = 0
        for step in range(steps):
            for process in range(self.processes):
                for rows in self.micro_batch_rows(step, process):
                    real += int(lengths[rows].sum())
                    padded += int(lengths[rows].max()) * len(rows)
        return 1 - real / padded if padded else 0.0


@dataclass(frozen=True)
class ProcessBatches:
    """Batch sampler: draw numbers of the micro batches of one process, step after step.

    With a budget of tokens it gives all micro batches of a step at once, as a list of lists.
    """

    plan: BatchPlan
    process: int

    def __len__(self) -> int:
        return self.plan.steps * (self.plan.micro_batches if self.plan.max_tokens is None else 1)

    def __iter__(self) -> Iterator[list[Any]]:
        for step in range(self.plan.steps):
            window = [draws.tolist() for draws in self.plan.micro_batch_draws(step, self.process)]
            if self.plan.max_tokens is None:
                yield from window
            else:
                yield window


def planned_steps(*, rows: int, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps of a run: `max_steps` where given, else enough to see every row `epochs` times."""
    return max_steps if max_steps is not None else max(1, math.ceil(epochs * rows / batch_size - 1e-9))


def by_length(lengths: Sequence[int], batch_size: int, *, most_tokens: int | None = None) -> list[np.ndarray]:
    """Row positions sorted by length, longest first, in batches: the order of evaluation.

    The longest batch comes first, so that running out of memory shows at once. A batch has at most
    `batch_size` rows, and, padded, at most `most_tokens` tokens (or one row).
    """
    sizes = np.asarray(lengths)
    order = np.argsort(-sizes, kind="stable")
    batches, start = [], 0
    while start < len(order):
        longest = max(1, int(sizes[order[start]]))
        size = batch_size if most_tokens is None else min(batch_size, max(1, most_tokens // longest))
        batches.append(order[start : start + size])
        start += size
    return batches
