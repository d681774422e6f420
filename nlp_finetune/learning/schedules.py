"""Learning-rate schedules: a factor of the peak rate for each optimizer step, whatever the number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nlp_finetune.learning.thawing import STARTS_AT


@dataclass(frozen=True)
class _Course:
    """Where a schedule is: `step` (0-based) of `steps`, of which the first `rise` are the warm-up."""

    step: int
    steps: int
    rise: int
    power: float
    decay: float

    @property
    def done(self) -> float:
        """Share, 0 to 1, of the steps after the warm-up."""
        return min(1.0, (self.step - self.rise) / max(1, self.steps - self.rise))


def _cosine(course: _Course) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * course.done))


def _inverse_sqrt(course: _Course) -> float:
    # Falls as 1 / sqrt(step) from the end of the warm-up on (Vaswani et al. 2017, Attention Is All You Need).
    scale = max(1, course.rise)
    return math.sqrt(scale / (scale + course.step - course.rise))


def _warmup_stable_decay(course: _Course) -> float:
    # Hu et al. 2024, MiniCPM.
    return min(1.0, (course.steps - course.step) / (course.decay * course.steps))


SCHEDULES: Mapping[str, Callable[[_Course], float]] = {
    "linear": lambda course: 1.0 - course.done,
    "cosine": _cosine,
    "constant": lambda course: 1.0,
    "polynomial": lambda course: (1.0 - course.done) ** course.power,
    "inverse_sqrt": _inverse_sqrt,
    "one_cycle": _cosine,
    "warmup_stable_decay": _warmup_stable_decay,
    "plateau": lambda course: 1.0,
}
"""Name -> factor of the learning rate after the warm-up."""

_SMOOTH_RISE_FROM = {"one_cycle": 1 / 25}
"""Schedules that rise along a cosine, and the factor they start from (Smith and Topin 2017, Super-Convergence)."""


def warmup_steps(warmup: float, steps: int) -> int:
    """Optimizer steps of warm-up: `warmup` below 1 is a share of all steps, else a number of steps."""
    return math.ceil(warmup * steps) if warmup < 1 else int(warmup)


class ScheduleFactor:
    """Factor of the learning rate before optimizer step `step` (0-based): the warm-up, then the schedule.

    `cut` multiplies it besides. It is part of the scheduler's state, since `LambdaLR` saves the attributes of
    callable objects, so that a resumed run goes on with it.
    """

    def __init__(
        self, name: str, *, warmup: float, steps: int, power: float = 2.0, decay: float = 0.2, starts_at: int = 0
    ) -> None:
        self.name = name
        self.steps = steps
        self.rise = warmup_steps(warmup, steps)
        self.power = power
        self.decay = decay
        self.cut = 1.0
        self.starts_at = starts_at

    def __call__(self, step: int) -> float:
        if self.starts_at == 0:
            return self._shape(step)
        # What thaws later has a warm-up of its own, as long as that of the run.
        return self._shape(step) * min(1.0, max(0.0, (step - self.starts_at + 1) / (self.rise + 1)))

    def _shape(self, step: int) -> float:
        course = _Course(step, self.steps, self.rise, self.power, self.decay)
        if step < self.rise:
            start = _SMOOTH_RISE_FROM.get(self.name)
            if start is None:
                return self.cut * step / self.rise
            return self.cut * (start + (1 - start) * 0.5 * (1 - math.cos(math.pi * step / self.rise)))
        return self.cut * max(0.0, SCHEDULES[self.name](course))


def make_scheduler(
    optimizer: Optimizer, steps: int, *, name: str, warmup: float, power: float = 2.0, decay: float = 0.2
) -> LambdaLR:
    """Schedule over `steps` optimizer steps; parameter groups that thaw later warm up from then on."""
    return LambdaLR(
        optimizer,
        [
            ScheduleFactor(
                name, warmup=warmup, steps=steps, power=power, decay=decay, starts_at=group.get(STARTS_AT, 0)
            )
            for group in optimizer.param_groups
        ],
    )
