"""Clipping of gradients number by number; engines clip by norm themselves."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def clip_by_value(parameters: Any, *, limit: float) -> None:
    """Put every number of the gradients into [-`limit`, `limit`], in place.

    Mikolov 2012, Statistical Language Models Based on Neural Networks. Sharded gradients are clipped shard by
    shard, with the same result.
    """
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.clamp_(-limit, limit)


class ClipByValue(TrainerCallback):  # type: ignore[misc]
    """Clips the summed gradients of a step before the optimizer sees them."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        clip_by_value(model.parameters(), limit=self.limit)
