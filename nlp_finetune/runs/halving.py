"""Another learning rate in a checkpoint: what goes on from it goes on with that rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nlp_finetune.runs import checkpoints


@dataclass(frozen=True)
class _Saved:
    """Something saved that is saved again."""

    content: dict[str, Any]

    def state_dict(self) -> dict[str, Any]:
        return self.content


def scale_rate(folder: Path, factor: float, *, callbacks: Mapping[str, Any]) -> int:
    """Multiply the learning rate of a checkpoint, from its next step on, and replace its callbacks' state.

    The checkpoint changes as a whole or not at all. Gives its step. Schedules are those of `learning.schedules`,
    whose factor has a `cut`.
    """
    state = checkpoints.load_trainer_state(folder)
    scheduler = torch.load(folder / "scheduler.pt", map_location="cpu", weights_only=True)
    for course in scheduler["lr_lambdas"]:
        course["cut"] *= factor
    scheduler["_last_lr"] = [rate * factor for rate in scheduler["_last_lr"]]
    optimizer = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
    for group in optimizer["param_groups"]:
        group["lr"] *= factor  # the next step takes it from here, before the schedule has its say
    checkpoints.amend(folder, state=state, scheduler=_Saved(scheduler), callbacks=callbacks, optimizer=optimizer)
    return int(state.global_step)
