"""Logits of options, one after the other for all rows of a batch, as losses and probabilities of rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def choice_loss(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, counts: Tensor, labels: Tensor) -> Tensor:
    """Sum of `loss(logits [rows, options], labels [rows])` over rows with equally many options.

    `logits` is `[options of all rows]`, `counts` and `labels` are `[rows]`. No option that a row lacks
    enters its softmax, nor does label smoothing give it anything.
    """
    ends = counts.cumsum(0)
    parts = []
    for count in sorted(set(counts.tolist())):
        rows = counts == count
        positions = (ends[rows] - count).unsqueeze(1) + torch.arange(count, device=logits.device)
        parts.append(loss(logits[positions], labels[rows]))
    return torch.stack(parts).sum()


def probabilities(logits: Tensor, counts: Tensor) -> list[Tensor]:
    """Softmax over the options of each row, `[options of the row]` each, in float32."""
    return [row.float().softmax(-1) for row in torch.split(logits, counts.tolist())]
