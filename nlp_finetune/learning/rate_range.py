"""A learning-rate range test read: losses under a rate that grows from step to step, smoothed, and a suggestion.

Smith 2017, Cyclical Learning Rates for Training Neural Networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SMOOTHING = 0.9
"""Share of the running mean that each loss keeps."""
_DIVERGED = 4.0
"""Times the lowest smoothed loss at which the test ends."""
_LEAST_FALL = 0.02
"""Share of the first loss by which it must fall for anything to be suggested: less is noise."""
_LEAST_STEPS = 10
"""Steps before the test may end by itself, or anything is read off it: the first losses are noise."""


def growing_rate(step: int, *, steps: int, low: float, high: float) -> float:
    """Rate of step `step` (0-based) of `steps`: from `low` to `high` in equal ratios."""
    return float(low * (high / low) ** (step / max(1, steps - 1)))


def smoothed(losses: Sequence[float], *, keep: float = SMOOTHING) -> list[float]:
    """Exponential running means, corrected for where they begin (as Adam's are)."""
    mean, found = 0.0, []
    for count, loss in enumerate(losses, 1):
        mean = keep * mean + (1 - keep) * loss
        found.append(mean / (1 - keep**count))
    return found


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the test may end: the last loss is no number, or the smoothed one far above its lowest."""
    if not math.isfinite(losses[-1]):
        return True
    means = smoothed(losses)
    return len(losses) > _LEAST_STEPS and means[-1] > _DIVERGED * max(min(means), 1e-12)


def suggest(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate at which the smoothed loss falls fastest, at most a tenth of the one where it is lowest.

    The loss of a step is that before its update. None where the loss does not fall.
    """
    finite = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    means = smoothed(losses[:finite])
    if len(means) <= _LEAST_STEPS:
        return None
    lowest = min(range(len(means)), key=means.__getitem__)
    start = max(means[: lowest + 1])
    if start - means[lowest] < _LEAST_FALL * abs(start):
        return None
    slopes = [
        (means[i + 1] - means[i - 1]) / (math.log(rates[i + 1]) - math.log(rates[i - 1]))
        for i in range(1, len(means) - 1)
    ]
    until = max(2, lowest)
    steepest = 1 + min(range(min(len(slopes), until)), key=slopes.__getitem__)
    return min(rates[steepest], rates[lowest] / 10)


def rises_at(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The first rate at which the smoothed loss is a tenth above its lowest before, which bounds rates from above."""
    lowest = math.inf
    means = smoothed([loss for loss in losses if math.isfinite(loss)])
    for count, (rate, mean) in enumerate(zip(rates, means, strict=False), 1):
        if count > _LEAST_STEPS and mean > 1.1 * lowest:
            return rate
        lowest = min(lowest, mean)
    return None


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Keeps the loss of every step, and ends the test where it has diverged."""

    def __init__(self, *, say_every: int, steps: int, say: Callable[[str], None]) -> None:
        self.say_every = say_every
        self.steps = steps
        self.say = say
        self.losses: list[float] = []
        self.rates: list[float] = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> TrainerControl:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])
            self.rates.append(logs["learning_rate"])
            if state.global_step % self.say_every == 0:
                self.say(
                    f"step {state.global_step}/{self.steps}: rate {self.rates[-1]:.1e}, loss {self.losses[-1]:.4f}"
                )
            if has_diverged(self.losses):
                control.should_training_stop = True
                control.should_evaluate = False
        return control
