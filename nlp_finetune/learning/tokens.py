"""How well a model predicts tokens: sums by row, small enough to keep for every row."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlp_finetune.learning.losses import IGNORED


def token_sums(
    logits: Tensor, targets: Tensor, segments: Tensor | None = None
) -> list[np.ndarray] | list[list[np.ndarray]]:
    """For each row `[negative log likelihood, tokens, tokens predicted right]`, summed over its targets.

    `logits` is `[rows, length, vocabulary]`, `targets` `[rows, length]` with -100 where nothing is to be
    predicted; or `logits` is `[targets that count, vocabulary]`. With `segments` `[rows, length]` each row
    gives a list, of the same for its segments 0, 1, ...
    """
    counted = targets != IGNORED
    chosen, wanted = (logits if logits.dim() == 2 else logits[counted]).float(), targets[counted]
    scores = torch.zeros(*targets.shape, 3, dtype=torch.float64, device=targets.device)
    scores[counted] = torch.stack(
        [
            F.cross_entropy(chosen, wanted, reduction="none"),
            torch.ones_like(wanted, dtype=torch.float32),
            (chosen.argmax(-1) == wanted).float(),
        ],
        dim=-1,
    ).double()
    if segments is None:
        return list(scores.sum(1).cpu().numpy())
    found = []
    for row, owner in zip(scores.cpu().numpy(), segments.cpu().numpy(), strict=True):
        found.append([row[owner == segment].sum(0) for segment in range(owner.max() + 1)])
    return found
