"""What `max_length` costs: truncation is never silent. And which tokens encoded rows hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

_PERCENTILES = (50, 75, 90, 95, 99)
_SHORTEST_ADVICE = 64
_MOST_ADVICE = 4


@dataclass(frozen=True)
class Cut:
    """What is lost at one maximal length: shares from 0 to 1 of all rows and of all tokens."""

    max_length: int
    rows: float
    tokens: float


@dataclass(frozen=True)
class LengthReport:
    """Lengths of a split in tokens, and what is lost at `now.max_length` and at useful larger ones.

    `percentiles` maps 50, 75, 90, 95 and 99 to a length that some row has. `larger` has up to four
    lengths; it ends early with the first at which nothing is lost, or with the model's limit.
    """

    rows: int
    percentiles: dict[int, int]
    longest: int
    now: Cut
    larger: tuple[Cut, ...]

    def line(self) -> str:
        """Say it in one line: what is cut now, and what larger lengths would still lose."""
        if self.now.rows == 0:
            return f"no row is cut at {self.now.max_length}: the longest has {self.longest} tokens"
        now = self.now
        cut = f"{percent(now.rows)} of rows cut, {percent(now.tokens)} of tokens lost at {now.max_length}"
        if not self.larger:
            return f"{cut}, the model's limit"
        options = ", ".join(f"{option.max_length} -> {percent(option.tokens)}" for option in self.larger)
        return f"{cut}; {options} of tokens"


def length_report(lengths: np.ndarray, max_length: int, *, limit: int | None = None) -> LengthReport:
    """Measure what is lost at `max_length`, and at 64, 128, 256, 512, ... beyond it up to `limit`.

    `lengths` is `[rows]`, in tokens with special tokens, before anything is cut; `limit` is the longest
    input of the model, None where it has none. Raises `ValueError` without rows.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if len(lengths) == 0:
        raise ValueError("no rows to measure")
    values = np.percentile(lengths, _PERCENTILES, method="inverted_cdf").astype(int).tolist()
    now = _cut(lengths, max_length)
    larger: list[Cut] = []
    last = now
    size = _SHORTEST_ADVICE
    while last.tokens > 0 and len(larger) < _MOST_ADVICE and (limit is None or last.max_length < limit):
        if size > max_length:
            last = _cut(lengths, size if limit is None else min(size, limit))
            larger.append(last)
        size *= 2
    return LengthReport(
        rows=len(lengths),
        percentiles=dict(zip(_PERCENTILES, values, strict=True)),
        longest=int(lengths.max()),
        now=now,
        larger=tuple(larger),
    )


def percent(share: float) -> str:
    """Write a share with one decimal, never as `0 %` what is not 0, nor as `100 %` what is not all."""
    value = 100 * share
    if 0 < value < 0.1:
        return "< 0.1 %"
    if 99.9 < value < 100:
        return "> 99.9 %"
    return f"{value:.1f}".removesuffix(".0") + " %"


def _cut(lengths: np.ndarray, max_length: int) -> Cut:
    lost = np.maximum(lengths - max_length, 0)
    return Cut(max_length, rows=float((lost > 0).mean()), tokens=float(lost.sum() / max(lengths.sum(), 1)))


def tokens_used(encoded: Dataset, *, besides: Sequence[int] = ()) -> np.ndarray:
    """All token ids in the `input_ids` of encoded rows, and those `besides`, in order.

    A row may hold one sequence or several.
    """
    import pyarrow.compute

    column = encoded.with_format("arrow")[:].column("input_ids").combine_chunks()
    while pyarrow.types.is_nested(column.type):
        column = column.flatten()
    found = pyarrow.compute.unique(column).to_numpy(zero_copy_only=False)
    return np.union1d(found, np.asarray(besides, dtype=found.dtype))
