"""Rows that are mixed with others (mixup, CutMix): which with which, how much of each, and what a batch of them is.

The partner of a draw and its share are keyed by (seed, epoch, row) and chosen from all training rows, as mixup is
defined, so that no cut into micro batches and no number of processes changes them. Most implementations take the
partner from the batch at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

SHARE, PARTNER_LABELS, PARTNER_IDS = "share", "partner_labels", "partner_ids"
"""Columns of a batch: how much of each row is its own `[rows]`, and of its partner the label and the token ids."""
PARTNER_PIXELS, PIXEL_SHARE = "partner_pixels", "pixel_share"
"""Of images that are still to be mixed: the partner's bytes, and how much of each pixel is the row's own `[rows]`."""
_STREAM = 1
"""Keeps the numbers drawn here apart from those that change the row itself."""
_CANDIDATES = 8
"""Rows drawn for a partner, of which the one of the nearest length is taken: it hardly lengthens a batch."""


class Mix(NamedTuple):
    """With which row (position) another is mixed, how much stays its own, and for CutMix the middle of the part.

    The row itself has at least half; `middle` are shares of height and width, None for mixup.
    """

    partner: int
    share: float
    middle: tuple[float, float] | None


@dataclass(frozen=True)
class Mixing:
    """Draws a `Mix` for each draw: mixup with `Beta(mixup, mixup)`, CutMix with `Beta(cutmix, cutmix)`, or either.

    `lengths` has one length a row; `chances` `[rows]` are those of each row to be drawn, all alike by default.
    """

    lengths: Sequence[int]
    seed: int
    mixup: float = 0.0
    cutmix: float = 0.0
    chances: np.ndarray | None = None

    def of(self, epoch: int, row: int) -> Mix:
        """How a row is mixed in an epoch."""
        random = np.random.default_rng([self.seed, epoch, row, _STREAM])
        cuts = bool(self.cutmix) and (not self.mixup or random.random() < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        share = float(random.beta(alpha, alpha))
        found = self._candidates(random)
        partner = min(found, key=lambda other: abs(int(self.lengths[other]) - int(self.lengths[row])))
        middle = (float(random.random()), float(random.random())) if cuts else None
        return Mix(partner, max(share, 1 - share), middle)

    def _candidates(self, random: np.random.Generator) -> list[int]:
        if self.chances is None:
            found = random.integers(len(self.lengths), size=_CANDIDATES)
        else:
            ends = np.cumsum(self.chances)
            found = np.searchsorted(ends, random.random(_CANDIDATES) * ends[-1], side="right")
        return [int(row) for row in found]


def part(height: int, width: int, mix: Mix) -> tuple[slice, slice]:
    """Rows and columns of an image that its partner takes in CutMix: the share it has, cut off at the edges."""
    assert mix.middle is not None
    side = (1 - mix.share) ** 0.5
    spans = []
    for length, at in zip((height, width), mix.middle, strict=True):
        middle, half = at * length, side * length / 2
        spans.append(slice(max(0, round(middle - half)), min(length, round(middle + half))))
    return spans[0], spans[1]


@dataclass(frozen=True)
class MixedImages:
    """Collates rows with their `mix` and `partner`: pixels and labels of both, and how much of a row is its own.

    What CutMix takes of a partner is put into the row here. Mixup's weighted means are no bytes: the model's side makes
    them (`learning.mixing`), of the partner's bytes, which are left out of a batch without such rows.
    """

    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        batch, other = self.collate(rows), self.collate([row["partner"] for row in rows])
        pixels, shares, of_pixels = batch["pixel_values"], [], []
        height, width = pixels.shape[-2:]
        for image, partner, row in zip(pixels, other["pixel_values"], rows, strict=True):
            mix: Mix = row["mix"]
            if mix.middle is None:
                shares.append(mix.share)
                of_pixels.append(mix.share)
            else:
                down, across = part(height, width, mix)
                image[:, down, across] = partner[:, down, across]
                shares.append(1 - (down.stop - down.start) * (across.stop - across.start) / (height * width))
                of_pixels.append(1.0)
        mixed = {**batch, PARTNER_LABELS: other["labels"], SHARE: torch.tensor(shares)}
        if min(of_pixels) == 1:
            return mixed
        return {**mixed, PARTNER_PIXELS: other["pixel_values"], PIXEL_SHARE: torch.tensor(of_pixels)}


@dataclass(frozen=True)
class MixedTexts:
    """Collates rows with their `mix` and `partner`: token ids and labels of both, in the length of the row itself.

    Of the partner those tokens count that stand where the row has one too; elsewhere the row keeps its own. With
    `left` rows are padded on the left.
    """

    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]
    left: bool

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        batch, other = self.collate(rows), self.collate([row["partner"] for row in rows])
        length = batch["input_ids"].shape[1]
        ids, there = (self._fitted(other[name], length) for name in ("input_ids", "attention_mask"))
        partner = torch.where((there * batch["attention_mask"]).bool(), ids, batch["input_ids"])
        shares = torch.tensor([row["mix"].share for row in rows])
        return {**batch, PARTNER_IDS: partner, PARTNER_LABELS: other["labels"], SHARE: shares}

    def _fitted(self, tensor: torch.Tensor, length: int) -> torch.Tensor:
        """`[rows, length]`, cut off or filled with 0 at the side of the padding."""
        from torch.nn.functional import pad

        missing = length - tensor.shape[1]
        return pad(tensor, (missing, 0) if self.left else (0, missing))
