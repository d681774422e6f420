"""Mixup and CutMix: the objective of rows that are mixed with others, on soft labels."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nlp_finetune.data.mixing import PARTNER_IDS, PARTNER_LABELS, PARTNER_PIXELS, PIXEL_SHARE, SHARE
from nlp_finetune.learning.regularizers import Objective, word_embeddings

_OF_MIXING = (SHARE, PARTNER_LABELS, PARTNER_IDS, PARTNER_PIXELS, PIXEL_SHARE)


def mixed_targets(own: Tensor, partner: Tensor, share: Tensor, *, classes: int) -> Tensor:
    """`share` x own + (1 - `share`) x partner.

    Targets are `[rows]` of class numbers, which become `[rows, classes]` that sum to one, or floats of any shape
    `[rows, ...]` that keep it; `share` is `[rows]`.
    """
    one, other = (t if t.is_floating_point() else F.one_hot(t, classes).to(share.dtype) for t in (own, partner))
    weight = share.view(-1, *[1] * (one.ndim - 1)).to(one.dtype)
    return weight * one + (1 - weight) * other


def mixed_pixels(own: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """`share` x own + (1 - `share`) x partner: bytes `[rows, 3, height, width]`, mixed in fp32 and not rounded again.

    At share 1 an image is itself, to the last digit.
    """
    weight = share.view(-1, 1, 1, 1)
    return weight * own + (1 - weight) * partner


def mixed(objective: Objective, *, classes: int) -> Objective:
    """The objective on mixed rows: soft labels, and pixels, or word embeddings of texts, mixed with their partners'.

    What is counted as items are the rows themselves, mixed or not. A batch without partners is left as it is.
    Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization; Guo, Mao and Zhang 2019, Augmenting Data with Mixup
    for Sentence Classification; Yun et al. 2019, CutMix.
    """

    def on_mixed(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[Tensor, Any]:
        if SHARE not in batch:
            return objective(model, batch, num_items)
        share = batch[SHARE]
        targets = mixed_targets(batch["labels"], batch[PARTNER_LABELS], share, classes=classes)
        rest = {name: v for name, v in batch.items() if name not in _OF_MIXING}
        if PARTNER_PIXELS in batch:
            rest["pixel_values"] = mixed_pixels(batch["pixel_values"], batch[PARTNER_PIXELS], batch[PIXEL_SHARE])
        partner = batch.get(PARTNER_IDS)
        with nullcontext() if partner is None else MixedEmbeddings(word_embeddings(model), partner, share):
            return objective(model, {**rest, "labels": targets}, num_items)

    return on_mixed


class MixedEmbeddings:
    """While this is entered, an embedding layer gives `share` x what it would + (1 - `share`) x the partners'.

    The layer is run once, on both texts: `partner` is `[rows, tokens]` like the ids that the model gives it.
    """

    def __init__(self, table: nn.Module, partner: Tensor, share: Tensor) -> None:
        self.table, self.partner, self.share = table, partner, share
        self.hooks: list[RemovableHandle] = []

    def __enter__(self) -> None:
        self.hooks = [
            self.table.register_forward_pre_hook(self._add_partners),
            self.table.register_forward_hook(self._mix),
        ]

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _add_partners(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.cat([inputs[0], self.partner]), *inputs[1:])

    def _mix(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        own, partner = output.chunk(2)
        share = self.share.to(output.dtype).view(-1, 1, 1)
        return share * own + (1 - share) * partner
