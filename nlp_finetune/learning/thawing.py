"""Gradual unfreezing: the head trains first, and one group of layers more from time to time.

Howard and Ruder 2018, Universal Language Model Fine-tuning for Text Classification. What is thawed
depends on the optimizer step alone, so a resumed run goes on as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

STARTS_AT = "starts_at"
"""Key of an optimizer's parameter group: the optimizer step from which on it trains."""


def thaw_steps(groups: int, *, every: int | str, rows: int, batch_size: int) -> list[int]:
    """Optimizer step before which each of the groups thaws; the first trains from the start.

    `every` is a number of steps, or `epoch`: before the first step that begins in the next epoch.
    """
    if every == "epoch":
        return [math.ceil(i * rows / batch_size) for i in range(groups)]
    return [i * int(every) for i in range(groups)]


class Thawing(TrainerCallback):  # type: ignore[misc]
    """Lets gradients reach the groups whose time has come.

    Acts after the model was wrapped for several processes: the wrapper must have seen every parameter
    that will ever train, and search for those without a gradient (`find_unused_parameters`). Otherwise
    the replicas drift apart without an error. `settle` is called after each change.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[nn.Parameter]],
        names: Sequence[str],
        starts: Sequence[int],
        *,
        settle: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self.groups, self.names, self.starts = groups, names, starts
        self.settle = settle
        self.say = say

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._set(state.global_step)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step > 0 and state.global_step in self.starts:
            self._set(state.global_step)
            thawed = [name for name, start in zip(self.names, self.starts, strict=True) if start == state.global_step]
            self.say(f"step {state.global_step}: {', '.join(thawed)} begins to train")

    def by_parameter(self) -> dict[int, int]:
        """Optimizer step from which on each parameter trains, by its `id`."""
        return {id(p): start for own, start in zip(self.groups, self.starts, strict=True) for p in own}

    def _set(self, step: int) -> None:
        for parameters, start in zip(self.groups, self.starts, strict=True):
            for parameter in parameters:
                parameter.requires_grad_(step >= start)
        self.settle()


def split_by_start(groups: Sequence[dict[str, Any]], starts: dict[int, int]) -> list[dict[str, Any]]:
    """An optimizer's parameter groups, divided by the step from which on parameters train, earliest first."""
    divided = []
    for start in sorted(set(starts.values())):
        for group in groups:
            chosen: list[torch.nn.Parameter] = [p for p in group["params"] if starts.get(id(p), 0) == start]
            if chosen:
                divided.append({**group, "params": chosen, STARTS_AT: start})
    return divided
