"""Callbacks that lose patience: after some evaluations in a row without a new best, something is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Patience(TrainerCallback):  # type: ignore[misc]
    """Calls `run_out` after `patience` evaluations in a row without a new best, and counts anew.

    Comes after the callback that sets `state.best_global_step`. Its count is part of every checkpoint.
    """

    def __init__(self, *, patience: int, say: Callable[[str], None]) -> None:
        self.patience = patience
        self.say = say
        self.evaluations_without_best = 0

    def state_dict(self) -> dict[str, Any]:
        return {"evaluations_without_best": self.evaluations_without_best}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.evaluations_without_best = saved["evaluations_without_best"]

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        lr_scheduler: Any = None,
        **_: Any,
    ) -> TrainerControl:
        is_best = state.best_global_step == state.global_step
        self.evaluations_without_best = 0 if is_best else self.evaluations_without_best + 1
        if self.evaluations_without_best >= self.patience and not control.should_training_stop:
            self.evaluations_without_best = 0
            self.run_out(state, control, lr_scheduler)
        return control

    def run_out(self, state: TrainerState, control: TrainerControl, lr_scheduler: Any) -> None:
        """What is done then."""
        raise NotImplementedError


class EarlyStopping(Patience):
    """Ends training."""

    def run_out(self, state: TrainerState, control: TrainerControl, lr_scheduler: Any) -> None:
        self.say(
            f"early stopping at step {state.global_step}: no better than step {state.best_global_step} "
            f"in {self.patience} evaluations"
        )
        control.should_training_stop = True


class ReduceOnPlateau(Patience):
    """Multiplies the learning rate by `factor`, from the step after the next on."""

    def __init__(self, *, patience: int, factor: float, say: Callable[[str], None]) -> None:
        super().__init__(patience=patience, say=say)
        self.factor = factor

    def run_out(self, state: TrainerState, control: TrainerControl, lr_scheduler: Any) -> None:
        # One factor serves all groups of parameters.
        for factor in {id(f): f for f in lr_scheduler.lr_lambdas}.values():
            factor.cut *= self.factor
        self.say(
            f"step {state.global_step}: no better than step {state.best_global_step} in {self.patience} "
            f"evaluation(s); the learning rate is multiplied by {self.factor:g}"
        )
