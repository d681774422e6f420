"""Supervised contrastive learning: rows of one class close together, rows of others apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.learning.regularizers import Objective
from nlp_finetune.models.heads import output_layer


def contrast(features: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """Sum over rows i of `-1 / |P(i)| sum_{p in P(i)} log(exp(z_i z_p / T) / sum_{a != i} exp(z_i z_a / T))`.

    `features` is `[rows, width]`, z are features of length 1, `targets` `[rows]` of class numbers, T the temperature;
    P(i) are the other rows of i's class. A row without any adds nothing (Khosla et al. 2020, Supervised Contrastive
    Learning, equation 2).
    """
    z = F.normalize(features.float().flatten(1), dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    scores = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
    log_shares = (scores - scores.logsumexp(1, keepdim=True)).masked_fill(itself, 0.0)
    positive = (targets[:, None] == targets[None, :]) & ~itself
    count = positive.sum(1)
    each = -(log_shares * positive).sum(1) / count.clamp_min(1)
    return each.sum()


def supervised_contrastive(objective: Objective, *, weight: float, temperature: float) -> Objective:
    """The objective and `weight` x the contrast of what its output layer reads, over the rows of a micro batch.

    Both are divided by the items of the optimizer step, so that a cut into micro batches changes only which rows are
    compared (Gunel et al. 2021, Supervised Contrastive Learning for Pre-trained Language Model Fine-tuning).
    """

    def both(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[Tensor, Any]:
        seen: list[Tensor] = []

        def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.append(inputs[0])

        with last_layer(model).register_forward_pre_hook(keep):
            loss, outputs = objective(model, batch, num_items)
        apart = contrast(seen[-1], batch["labels"], temperature=temperature) / num_items
        return loss + weight * apart, outputs

    return both


def last_layer(model: Any) -> nn.Module:
    """The layer that gives the scores, inside the wrappers of data parallelism and of adapters.

    Raises `NlpFinetuneError` for a model whose last layer is not linear with one output a class.
    """
    inner = getattr(model, "module", model)
    if hasattr(inner, "peft_config"):
        inner = inner.get_base_model()
    found = output_layer(inner)
    if found is None:
        raise NlpFinetuneError(
            "regularize.supervised_contrastive: this model has no linear layer that gives the scores."
        )
    return found[1]
