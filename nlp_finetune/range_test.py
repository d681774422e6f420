"""`lr-find`: a learning-rate range test of a recipe, as it would train, in a folder that is thrown away."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from nlp_finetune import joining
from nlp_finetune import runtime as processes
from nlp_finetune.build import Built, build
from nlp_finetune.learning import rate_range as reading
from nlp_finetune.learning.divergence import FiniteWatch
from nlp_finetune.learning.flow import Flow, RankSeed, Requests
from nlp_finetune.learning.health import Doctor, Health
from nlp_finetune.learning.patience import Patience
from nlp_finetune.preparation import prepare
from nlp_finetune.recipe import Recipe
from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.stopping import StopRequest

_NOT_IN_A_TEST = (FiniteWatch, Flow, RankSeed, Requests, Doctor, Health, Patience)
"""What steers, judges or ends a run of its own; what changes gradients or weights stays."""


@dataclass(frozen=True)
class RangeTest:
    """Learning rates, the training loss at each, and the suggestion; `ended` says how the test ended."""

    rates: list[float]
    losses: list[float]
    suggestion: float | None
    ended: str
    recipe_rate: float

    @property
    def rises_at(self) -> float | None:
        """The rate from which on the loss rises, if any."""
        return reading.rises_at(self.rates, self.losses)

    @property
    def smoothed(self) -> list[float]:
        """The losses as the suggestion reads them."""
        return reading.smoothed([loss for loss in self.losses if math.isfinite(loss)])


def range_test(recipe: Recipe, *, steps: int, low: float, high: float) -> tuple[RangeTest, Runtime]:
    """Train `steps` optimizer steps while the rate grows from `low` to `high`; nothing of it is kept.

    Freezing, adapters, loss, clipping, optimizer and batches are those of the recipe; its schedule, evaluations and
    checkpoints are not. Groups with rates of their own keep their ratios. Raises `InputError` as training would.
    """
    # No evaluation, no checkpoint: what of a run is longer than the test does not matter.
    train = recipe.train.model_copy(update={"max_steps": steps, "eval_every": steps, "save_every": "eval"})
    recipe = recipe.model_copy(update={"train": train})
    here = joining.start(threads=train.threads)
    say(here.described)
    processes.set_seed(train.seed)
    prepared = prepare(recipe, here)
    recorder = reading.Recorder(say_every=max(1, steps // 10), steps=steps, say=say)
    with tempfile.TemporaryDirectory() as folder, StopRequest() as stop:
        built = build(prepared, RunFolder(Path(folder)), here, stop, about={})
        _fit(built, recipe, recorder, here, steps=steps, low=low, high=high)
    ended = "the rate reached its end" if len(recorder.losses) == steps else "the loss had diverged"
    suggestion = reading.suggest(recorder.rates, recorder.losses)
    return RangeTest(recorder.rates, recorder.losses, suggestion, ended, recipe.optim.learning_rate), here


def _fit(
    built: Built, recipe: Recipe, recorder: reading.Recorder, here: Runtime, *, steps: int, low: float, high: float
) -> None:
    plan, peak = built.job.batches, recipe.optim.learning_rate

    def schedule(optimizer: Any, _steps: int) -> LambdaLR:
        return LambdaLR(
            optimizer, lambda step: reading.growing_rate(min(step, steps - 1), steps=steps, low=low, high=high) / peak
        )

    kept = [
        callback
        for callback in built.job.callbacks
        if type(callback).__module__.startswith("nlp_finetune.learning") and not isinstance(callback, _NOT_IN_A_TEST)
    ]
    job = replace(
        built.job,
        make_scheduler=schedule,
        score=lambda model: None,
        on_gradients=lambda norm: None,
        callbacks=[
            Flow(plan, log_every=1, eval_every="end", save_every=None),
            RankSeed(recipe.train.seed, rank=here.rank),
            *kept,
            recorder,
        ],
    )
    if recipe.train.engine == "trainer":
        from nlp_finetune.engines.hf_trainer import fit
    else:
        from nlp_finetune.engines.loop import fit
    fit(job)
