"""Losses: `loss(logits, targets) -> Tensor`, the sum over items of the loss of each, in float32.

The caller divides by the number of items in the whole optimizer step, so that neither gradient
accumulation nor the number of processes changes the result. Weights of classes change what an item adds,
never how many items there are. What counts as an item:

    cross_entropy, focal    rows (tokens, where targets are tokens) whose target is not -100; rows of soft targets
    bce                     rows x classes
    mse, huber              rows
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nlp_finetune.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]

IGNORED = -100
"""Target of an item that does not count: padding, word pieces after the first."""


def cross_entropy(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Sum `-sum_k w_k q_k log p_k`, with p = softmax(logits) and q the smoothed true class.

    `logits` is `[..., classes]`, `targets` `[...]` of class numbers or `[..., classes]` of probabilities (which are q
    then, before it is smoothed), `weights` `[classes]` (all 1 by default). With `label_smoothing` e,
    q = (1 - e) one_hot + e / classes (Szegedy et al. 2016, Rethinking the Inception Architecture).
    """
    return F.cross_entropy(
        *_flat(logits, targets),
        weight=_beside(weights, logits),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="sum",
    )


def focal(logits: Tensor, targets: Tensor, *, gamma: float = 2.0, weights: Tensor | None = None) -> Tensor:
    """Sum `-w_t (1 - p_t)^gamma log p_t`, with p_t the probability of the true class.

    `logits` is `[..., classes]`, `targets` `[...]` of class numbers or `[..., classes]` of probabilities, over which
    it is averaged, `weights` `[classes]` (the paper's alpha).
    Rows that are already right count less; `gamma` 0 is cross-entropy (Lin et al. 2017, Focal Loss for Dense
    Object Detection).
    """
    flat, classes = _flat(logits, targets)
    if classes.is_floating_point():
        log_p = F.log_softmax(flat, -1)
        by_class = -((-torch.expm1(log_p)).clamp_min(torch.finfo(torch.float32).eps ** 2) ** gamma) * log_p
        own = _beside(weights, logits)
        return (classes * by_class * (1.0 if own is None else own)).sum()
    surprise = F.cross_entropy(flat, classes, ignore_index=IGNORED, reduction="none")
    # 1 - p_t from its logarithm, exact near p_t = 1; off 0, where a power below 1 has no finite slope.
    missing = (-torch.expm1(-surprise)).clamp_min(torch.finfo(torch.float32).eps ** 2)
    each = missing**gamma * surprise
    weight = _beside(weights, logits)
    return (each if weight is None else each * weight[classes.clamp_min(0)]).sum()


def bce(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Sum `-w y log s - (1 - y) log(1 - s)` over rows x classes, with s = sigmoid(logits).

    `logits` and `targets` are `[rows, classes]`, `targets` lie in 0 to 1; `weights` `[classes]` are those of the
    positive rows.
    """
    return F.binary_cross_entropy_with_logits(
        *_same_shape(logits, targets), pos_weight=_beside(weights, logits), reduction="sum"
    )


def mse(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum `(x - y)^2`. `logits` is `[rows, 1]` or `[rows]`, `targets` `[rows]`."""
    return F.mse_loss(*_same_shape(logits, targets), reduction="sum")


def huber(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum `d^2 / 2` where d = |x - y| <= 1, `d - 1/2` beyond: outliers pull with constant force.

    `logits` is `[rows, 1]` or `[rows]`, `targets` `[rows]` (Huber 1964, Robust Estimation of a Location
    Parameter).
    """
    return F.huber_loss(*_same_shape(logits, targets), reduction="sum", delta=1.0)


LOSSES: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"cross_entropy": cross_entropy, "focal": focal, "bce": bce, "mse": mse, "huber": huber}
)
WEIGHTED = ("cross_entropy", "focal", "bce")
"""Losses over classes, which may have weights."""


def build_loss(
    name: str, *, label_smoothing: float = 0.0, gamma: float = 2.0, weights: Sequence[float] | None = None
) -> Loss:
    """Make the loss called `name`: a function `(logits, targets) -> sum over items`.

    `weights` has one number a class. Raises `InputError` for an unknown name, a value out of range, and a
    value that the loss ignores.
    """
    if name not in LOSSES:
        raise InputError(f"loss.name: no loss {name!r}; there are {', '.join(LOSSES)}.")
    if not 0.0 <= label_smoothing < 1.0:
        raise InputError(f"loss.label_smoothing: {label_smoothing} is not from 0 to below 1.")
    if not gamma >= 0.0:
        raise InputError(f"loss.gamma: {gamma} is negative or not a number.")
    if label_smoothing != 0.0 and name != "cross_entropy":
        raise InputError(f"loss.label_smoothing: {name} does not use it; it needs loss.name=cross_entropy.")
    if gamma != 2.0 and name != "focal":
        raise InputError(f"loss.gamma: {name} does not use it; it needs loss.name=focal.")
    if weights is not None and name not in WEIGHTED:
        raise InputError(f"loss.class_weights: {name} does not use them; they need {' or '.join(WEIGHTED)}.")
    options: dict[str, dict[str, Any]] = {
        "cross_entropy": {"label_smoothing": label_smoothing},
        "focal": {"gamma": gamma},
    }
    given = options.get(name, {})
    if weights is not None:
        given = {**given, "weights": torch.tensor(weights, dtype=torch.float32)}
    return partial(LOSSES[name], **given)


def _beside(weights: Tensor | None, logits: Tensor) -> Tensor | None:
    """Weights on the device of the logits."""
    return None if weights is None else weights.to(logits.device, non_blocking=True)


def _flat(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """`[items, classes]` and `[items]` (`[items, classes]` of soft targets), from rows or from rows of tokens."""
    if targets.is_floating_point() and logits.shape == targets.shape:
        return tuple(tensor.reshape(-1, logits.shape[-1]).float() for tensor in (logits, targets))  # type: ignore[return-value]
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} do not fit targets {tuple(targets.shape)}")
    return logits.reshape(-1, logits.shape[-1]).float(), targets.reshape(-1)


def _same_shape(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both of one shape: `[rows, 1]` against `[rows]` would broadcast to rows x rows without a word."""
    if logits.ndim == targets.ndim + 1 and logits.shape[-1] == 1:
        logits = logits.squeeze(-1)
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} do not fit targets {tuple(targets.shape)}")
    return logits.float(), targets.float()
