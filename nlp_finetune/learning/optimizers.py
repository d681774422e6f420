"""Optimizers and learning-rate schedules, as tables of records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR

_BUILDERS: Mapping[str, tuple[type[Optimizer], tuple[str, ...]]] = {
    "adamw": (AdamW, ("betas", "eps")),
    "adam": (Adam, ("betas", "eps")),
    "rmsprop": (RMSprop, ("momentum", "eps")),
    "sgd": (SGD, ("momentum",)),
}
"""Name -> class and the settings it takes besides learning rate and weight decay."""


def parameter_groups(model: torch.nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices decay, vectors (biases, norms) do not.

    Raises `ValueError` if nothing trains.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("no parameter of the model is trainable")
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(
    model: torch.nn.Module,
    *,
    name: str,
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> Optimizer:
    """Build the optimizer called `name` for what trains in `model`."""
    kind, takes = _BUILDERS[name]
    settings: dict[str, Any] = {"momentum": momentum, "betas": betas, "eps": eps}
    groups = parameter_groups(model, weight_decay=weight_decay)
    return kind(groups, lr=learning_rate, **{key: settings[key] for key in takes})  # type: ignore[call-arg]


def _linear(done: float) -> float:
    return 1.0 - done


def _cosine(done: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _constant(done: float) -> float:
    return 1.0


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "constant": _constant,
}
"""Name -> factor of the learning rate at a share (0 to 1) of the steps after warm-up."""


def warmup_steps(warmup: float, steps: int) -> int:
    """Optimizer steps of warm-up: `warmup` below 1 is a share of all steps, else a number of steps."""
    return math.ceil(warmup * steps) if warmup < 1 else int(warmup)


def schedule_factor(name: str, *, warmup: float, steps: int) -> Callable[[int], float]:
    """Factor of the learning rate before optimizer step `step` (0-based): linear warm-up, then `name`."""
    rise = warmup_steps(warmup, steps)
    shape = SCHEDULES[name]

    def factor(step: int) -> float:
        if step < rise:
            return step / rise
        return max(0.0, shape(min(1.0, (step - rise) / max(1, steps - rise))))

    return factor


def make_scheduler(optimizer: Optimizer, steps: int, *, name: str, warmup: float) -> LambdaLR:
    """Schedule over `steps` optimizer steps, whatever the number of processes."""
    return LambdaLR(optimizer, schedule_factor(name, warmup=warmup, steps=steps))
