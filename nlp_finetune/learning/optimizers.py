"""Optimizers, as a table of records, and their groups of parameters; schedules are in `schedules.py`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import SGD, Adafactor, Adam, AdamW, Optimizer, RMSprop

from nlp_finetune.errors import InputError
from nlp_finetune.learning.lion import Lion
from nlp_finetune.learning.thawing import split_by_start


def _adamw_8bit(groups: Any, **settings: Any) -> Optimizer:
    from bitsandbytes.optim import AdamW8bit  # type: ignore[import-not-found]

    made: Optimizer = AdamW8bit(groups, **settings)
    return made


_BUILDERS: Mapping[str, tuple[Callable[..., Optimizer], tuple[str, ...]]] = {
    "adamw": (AdamW, ("betas", "eps")),
    "adam": (Adam, ("betas", "eps")),
    "rmsprop": (RMSprop, ("momentum", "eps")),
    "sgd": (SGD, ("momentum", "nesterov")),
    "adafactor": (Adafactor, ()),
    "lion": (Lion, ("betas",)),
    "adamw_8bit": (_adamw_8bit, ("betas", "eps")),
}
"""Name -> class and the settings it takes besides learning rate and weight decay."""


ELEMENTWISE = ("adamw", "adam", "rmsprop", "sgd")
"""What moves each number by itself, so that a share of a tensor moves as the whole does."""

_FUSED = ("adamw", "adam", "sgd")
"""What torch does in one pass over weights, gradients and states, on CPUs too, in place of one for each operation."""

DECOUPLED_DECAY = ("adamw", "lion")
"""What takes weight decay off the weights themselves, before and apart from the step along the gradient."""


def check_available(name: str, device: torch.device) -> None:
    """Raise `InputError` for an optimizer that this machine cannot run."""
    if name != "adamw_8bit":
        return
    if device.type != "cuda":
        raise InputError(f"optim.name adamw_8bit needs a GPU; this run is on {device.type}. Use optim.name=adamw.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("optim.name adamw_8bit needs bitsandbytes: pip install bitsandbytes")


def parameter_groups(
    model: torch.nn.Module, *, weight_decay: float, learning_rate: float, factors: Mapping[int, float] | None = None
) -> list[dict[str, Any]]:
    """Trainable parameters in groups of one rate each, the fastest first: matrices decay, vectors do not.

    Vectors are biases and the scales of norms. `factors` multiplies the learning rate of parameters, by their `id`.

    Raises `ValueError` if nothing trains.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("no parameter of the model is trainable")
    by_factor: dict[float, list[torch.nn.Parameter]] = {}
    for parameter in trainable:
        by_factor.setdefault((factors or {}).get(id(parameter), 1.0), []).append(parameter)
    groups = []
    for factor in sorted(by_factor, reverse=True):
        rate = {"lr": learning_rate * factor}
        matrices = [p for p in by_factor[factor] if p.ndim >= 2]
        vectors = [p for p in by_factor[factor] if p.ndim < 2]
        groups.append({"params": matrices, "weight_decay": weight_decay, **rate})
        groups.append({"params": vectors, "weight_decay": 0.0, **rate})
    return [group for group in groups if group["params"]]


def make_optimizer(
    model: torch.nn.Module,
    *,
    name: str,
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    starts: dict[int, int] | None = None,
    factors: Mapping[int, float] | None = None,
    one_pass: bool = True,
) -> Optimizer:
    """Build the optimizer called `name` for what trains in `model`, in one pass over each tensor where torch can.

    `factors` multiplies the learning rate of parameters, by their `id`; `starts` gives the step from which on they
    train, where layers thaw gradually.
    """
    kind, takes = _BUILDERS[name]
    settings: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "betas": betas, "eps": eps}
    groups = parameter_groups(model, weight_decay=weight_decay, learning_rate=learning_rate, factors=factors)
    groups = groups if starts is None else split_by_start(groups, starts)
    fused = one_pass and name in _FUSED and all(map(_can_be_fused, model.parameters()))
    more = {"fused": True} if fused else {}
    return kind(groups, lr=learning_rate, **{key: settings[key] for key in takes}, **more)


def _can_be_fused(parameter: torch.Tensor) -> bool:
    """Whether a parameter is a whole tensor of one process, of a kind and in a place that torch's fused steps know."""
    is_whole = not hasattr(parameter, "to_local")
    return is_whole and parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda")
