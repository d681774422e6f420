"""What the measured gradients of a run say: vanishing or exploding, where, and what to do.

Sources: Glorot and Bengio 2010, Understanding the Difficulty of Training Deep Feedforward Neural Networks; Pascanu,
Mikolov and Bengio 2013, On the Difficulty of Training Recurrent Neural Networks. The bounds are wide: fine-tuning
a pretrained model stays orders of magnitude inside them.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

WINDOW = 5
"""Lines of the history that a judgement looks at: one odd step is no illness."""
_THROUGH_DEPTH = 1e-4
"""Gradient of the lowest block over that of the highest, below which it vanishes on its way down."""
_NO_GRADIENT = 1e-7
"""Norm of the whole gradient below which nothing is learned."""
_HUGE = 1e4
"""Norm of the whole gradient, of a mean loss, that no clipping turns into a sensible direction."""
_GROWN = 100.0
"""Times that the gradient's norm, or the loss, may grow over what it was."""
_UPDATE = 0.3
"""Share of its size by which a group of weights may move in one step."""
_LEARNED = 0.05
"""Share of the first loss below which a small gradient is what is to be expected."""
_NUMBERED = re.compile(r"(?P<stack>.*)\.(?P<number>\d+)")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: what, in which group of layers (None is all), since which step, and what helps."""

    kind: Literal["vanishing", "exploding"]
    where: str | None
    step: int
    message: str


def diagnose(history: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Judge the last lines of a history that have a training loss; nothing where there are too few, or all is well.

    Lines are those of `history.jsonl`: `step`, `loss`, `grad_norm`, and under `health` the norms of gradients
    and the update-to-weight ratios by group, in the order of the model.
    """
    lines = [line for line in history if "loss" in line]
    if len(lines) < 2:
        return []
    recent = lines[-WINDOW:]
    found = [*_exploding(lines, recent), *_vanishing(lines, recent)]
    return list({(one.kind, one.where): one for one in found}.values())


def _exploding(lines: Sequence[Mapping[str, Any]], recent: Sequence[Mapping[str, Any]]) -> list[Finding]:
    step = recent[-1]["step"]
    found = []
    for name, what in (("grad_norm", "gradient"), ("loss", "loss")):
        last = recent[-1].get(name)
        earlier = [line[name] for line in lines[:-1] if _finite(line.get(name))]
        if last is not None and not _finite(last):
            found.append(Finding("exploding", None, step, f"the {what} is no finite number any more. {_LESS}"))
        elif last is not None and earlier and last > _GROWN * max(_typical(earlier), 1e-3):
            grown = last / max(_typical(earlier), 1e-3)
            found.append(
                Finding("exploding", None, step, f"the {what} is {grown:,.0f} times what it usually was. {_LESS}")
            )
    norms = [line["grad_norm"] for line in recent if _finite(line.get("grad_norm"))]
    if not found and norms and _typical(norms) > _HUGE:
        message = f"the gradient's norm is {_typical(norms):.0e}. {_TOO_LARGE} {_LESS}"
        found.append(Finding("exploding", None, step, message))
    for stack in _stacks(recent):
        low, high = (_recent(recent, "gradients", name) for name in (stack[0], stack[-1]))
        if high > 0 and low > high / _THROUGH_DEPTH:
            message = (
                f"the gradient grows {low / high:.0e} times on its way down from {stack[-1]} to {stack[0]}. "
                f"{_TOO_LARGE}"
            )
            found.append(Finding("exploding", stack[0], step, message))
    for name in _names(recent, "updates"):
        ratio = _recent(recent, "updates", name)
        # The first steps of a new head move it by more than it holds.
        if len(recent) == WINDOW and ratio > _UPDATE:
            message = f"{name} moves by {ratio:.0%} of its size in one step. {_LESS}"
            found.append(Finding("exploding", name, step, message))
    return found


_TOO_LARGE = (
    "Weights (or the labels of a regression) are too large: start from a pretrained checkpoint, or with smaller "
    "weights (model.config.initializer_range)."
)
_LESS = "Lower optim.learning_rate (lr-find suggests one), lengthen optim.warmup, or set optim.max_grad_norm=1.0."


def _vanishing(lines: Sequence[Mapping[str, Any]], recent: Sequence[Mapping[str, Any]]) -> list[Finding]:
    step = recent[-1]["step"]
    losses = [line["loss"] for line in lines if _finite(line["loss"])]
    if not losses or losses[-1] < _LEARNED * losses[0]:
        return []
    norms = [line["grad_norm"] for line in recent if _finite(line.get("grad_norm"))]
    if norms and max(norms) < _NO_GRADIENT:
        message = (
            f"the gradient of all weights is {max(norms):.0e}, so nothing is learned. Start from a pretrained "
            "checkpoint, or with larger weights (model.head_init=xavier, model.config.initializer_range), and "
            "without a saturating activation (model.activation)."
        )
        return [Finding("vanishing", None, step, message)]
    found = []
    for stack in _stacks(recent):
        low, high = (_recent(recent, "gradients", name) for name in (stack[0], stack[-1]))
        if low < _THROUGH_DEPTH * high:
            message = (
                f"the gradient shrinks to {low / high:.0e} on its way down from {stack[-1]} to {stack[0]}, so the "
                "lower layers learn nothing. Use model.activation=gelu or relu in place of a saturating one, start "
                "from a pretrained checkpoint, or take fewer layers."
            )
            found.append(Finding("vanishing", stack[0], step, message))
    return found


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _typical(values: Sequence[float]) -> float:
    return statistics.median(values)


def _names(lines: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    """Groups that every one of the lines measures: what has thawed a moment ago is not judged yet."""
    each = [line.get("health", {}).get(what, {}) for line in lines]
    return [name for name in (each[-1] if each else {}) if all(_finite(one.get(name)) for one in each)]


def _recent(lines: Sequence[Mapping[str, Any]], what: str, name: str) -> float:
    return _typical([line["health"][what][name] for line in lines])


def _stacks(lines: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Blocks of one stack, the lowest first, of each stack of which at least two are measured."""
    stacks: dict[str, list[str]] = {}
    for name in _names(lines, "gradients"):
        numbered = _NUMBERED.fullmatch(name)
        if numbered:
            stacks.setdefault(numbered["stack"], []).append(name)
    return [names for names in stacks.values() if len(names) > 1]
