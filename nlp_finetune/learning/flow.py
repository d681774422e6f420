"""Callbacks that steer a run: when to log, evaluate and save, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.data.batching import BatchPlan

Every = int | str
"""A number of optimizer steps, `epoch`, or `end`: only after the last step."""


class Flow(TrainerCallback):  # type: ignore[misc]
    """Sets when to log, evaluate and save, in optimizer steps and epochs of the batch plan.

    Comes first among the callbacks. `save_due` is ours and not `control.should_save`, because
    checkpoints are written by `runs.saving.Checkpoints` and not by the Trainer.
    """

    def __init__(self, plan: BatchPlan, *, log_every: int, eval_every: Every, save_every: Every | None) -> None:
        self.plan = plan
        self.log_every = log_every
        self.eval_every = eval_every
        self.save_every = save_every
        self.save_due = False
        self.interrupted = False
        self.step = 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        step = self.step = state.global_step
        state.epoch = self.plan.epoch_at(step)
        control.should_evaluate = self._evaluates(step)
        self.save_due = self._saves(step)
        control.should_log = self.logs(step)
        control.should_training_stop = control.should_training_stop or step >= self.plan.steps
        return control

    def logs(self, step: int) -> bool:
        """Whether the plan logs after `step` steps; what no plan knows (a request to stop) comes on top."""
        # A log at each save keeps the running loss equal between a resumed run and one that never stopped.
        return step % self.log_every == 0 or self._evaluates(step) or self._saves(step)

    def _evaluates(self, step: int) -> bool:
        return step >= self.plan.steps or self._due(self.eval_every, step)

    def _saves(self, step: int) -> bool:
        if self.save_every == "eval":
            return self._evaluates(step)
        return self.save_every is not None and (step >= self.plan.steps or self._due(self.save_every, step))

    def _due(self, every: Every, step: int) -> bool:
        if every == "end":
            return False
        return self.plan.ends_epoch(step) if every == "epoch" else step % int(every) == 0


class RankSeed(TrainerCallback):  # type: ignore[misc]
    """Seeds dropout at the start of training: alike in both engines, different on each process."""

    def __init__(self, seed: int, *, rank: int) -> None:
        self.seed = seed
        self.rank = rank

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == 0:
            torch.manual_seed(self.seed + self.rank)
        else:
            # The saved random state takes its place, unless other processes than these saved it.
            draw = np.random.SeedSequence([self.seed, state.global_step, self.rank]).generate_state(1, np.uint64)
            torch.manual_seed(int(draw[0]))


class Requests(TrainerCallback):  # type: ignore[misc]
    """Acts on what no plan of steps knows: a request to stop, and a checkpoint that is due by the clock.

    `agree(due)` tells, alike on every process, whether any was asked to stop and whether any finds a
    checkpoint due. Training ends, with a checkpoint, at the next step after a request.
    """

    def __init__(
        self, *, agree: Callable[[bool], tuple[bool, bool]], flow: Flow, save_every_s: float | None = None
    ) -> None:
        self.agree = agree
        self.flow = flow
        self.save_every_s = save_every_s
        self._saved_at = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._saved_at = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        waited = time.monotonic() - self._saved_at
        stop, save = self.agree(self.save_every_s is not None and waited >= self.save_every_s)
        if save:
            self.flow.save_due = control.should_log = True
        if stop and not control.should_training_stop:
            self.flow.interrupted = self.flow.save_due = True
            control.should_log = True
            control.should_evaluate = False
            control.should_training_stop = True
        if self.flow.save_due:
            self._saved_at = time.monotonic()
        return control
