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
        self.evaluations_without_best = 0 if self.counts(state) else self.evaluations_without_best + 1
        if self.evaluations_without_best >= self.patience and not control.should_training_stop:
            self.evaluations_without_best = 0
            self.run_out(state, control, lr_scheduler)
        return control

    def counts(self, state: TrainerState) -> bool:
        """Whether this evaluation is a new best."""
        return bool(state.best_global_step == state.global_step)

    def run_out(self, state: TrainerState, control: TrainerControl, lr_scheduler: Any) -> None:
        """What is done then."""
        raise NotImplementedError


class EarlyStopping(Patience):
    """Ends training; `min_delta` is how much better than the last one that counted a new best must be to count.

    The best weights are kept all the same. Prechelt 1998, Early Stopping - But When?
    """

    def __init__(self, *, patience: int, min_delta: float = 0.0, say: Callable[[str], None]) -> None:
        super().__init__(patience=patience, say=say)
        self.min_delta = min_delta
        self.counted: float | None = None
        """The last best that counted."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "counted": self.counted}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict(saved)
        self.counted = saved.get("counted")

    def counts(self, state: TrainerState) -> bool:
        if not super().counts(state):
            return False
        best: float | None = state.best_metric
        # A new best is better than the one before, whichever way the metric goes.
        if best is not None and self.counted is not None and abs(best - self.counted) <= self.min_delta:
            return False
        self.counted = best
        return True

    def run_out(self, state: TrainerState, control: TrainerControl, lr_scheduler: Any) -> None:
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        self.say(
            f"early stopping at step {state.global_step}: no better{by} than step {state.best_global_step} "
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
