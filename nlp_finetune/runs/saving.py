"""Callbacks that save what training has reached: best weights and checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.models import compact, sharding
from nlp_finetune.runs import checkpoints, sealing
from nlp_finetune.runs.folder import disk_faults, replaced_folder
from nlp_finetune.runs.timing import Stopwatch
from nlp_finetune.runtime import Runtime


class Stateful(Protocol):
    """A callback whose state belongs into a checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, saved: dict[str, Any]) -> None: ...


class SaveClock(Protocol):
    """Whatever decides when a checkpoint is due (`learning.flow.Flow`)."""

    save_due: bool
    interrupted: bool


class Averaged(Protocol):
    """An average of weights that takes the place of a model's (`learning.averaging.WeightAverage`)."""

    def applied(self) -> AbstractContextManager[None]: ...

    def tensors(self) -> dict[str, Any]: ...


class BestWeights(TrainerCallback):  # type: ignore[misc]
    """Keeps the best evaluation in the state, and the weights of the `keep` best ones in `checkpoints/best-N`.

    `kept` has the score and the step of each, the best first.
    """

    def __init__(
        self,
        root: Path,
        *,
        metric: str,
        greater_is_better: bool,
        runtime: Runtime,
        average: Averaged | None = None,
        keep: int = 1,
    ) -> None:
        self.root = root
        self.metric = metric
        self.average = average
        self.keep = keep
        self.kept: list[tuple[float, int]] = []
        self.greater_is_better = greater_is_better
        self.runtime = runtime

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        model: Any = None,
        **_: Any,
    ) -> None:
        key = f"eval_{self.metric}"
        if key not in metrics:
            known = ", ".join(sorted(name.removeprefix("eval_") for name in metrics))
            raise NlpFinetuneError(f"train.metric {self.metric}: not among the task's metrics ({known})")
        value, best = metrics[key], state.best_metric
        if best is None or self._is_better(value, best):
            state.best_metric, state.best_global_step = value, state.global_step
        elif not self._is_among_the_best(value):
            return
        self.kept.append((value, state.global_step))
        self.kept.sort(key=lambda one: (-one[0] if self.greater_is_better else one[0], one[1]))
        del self.kept[self.keep :]
        weights = sharding.whole_weights(model, keep=self.runtime.is_main)
        self.runtime.on_main(lambda: self._save(state.global_step, model, weights))

    def _is_better(self, value: float, other: float) -> bool:
        return value > other if self.greater_is_better else value < other

    def _is_among_the_best(self, value: float) -> bool:
        if self.keep == 1:
            return False
        return len(self.kept) < self.keep or self._is_better(value, self.kept[-1][0])

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.kept = [(value, step) for value, step in saved["kept"]]

    def _save(self, step: int, model: Any, weights: Mapping[str, Any] | None) -> None:
        folder = checkpoints.best_folder(self.root, step)
        with disk_faults(f"the best weights of step {step}", folder), replaced_folder(folder) as partial:
            with nullcontext() if self.average is None else self.average.applied():
                checkpoints.save_weights(model, partial, weights)
            sealing.seal(partial)


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Writes a checkpoint when one is due: after the evaluation of the same step, if there is one.

    Comes last among the callbacks, so that what it saves is their state after this step. An evaluation that
    was left because the run is to stop is marked as still to be done. `at_start` saves one before the first step,
    for what may have to go back there.
    """

    def __init__(
        self,
        root: Path,
        *,
        clock: SaveClock,
        stateful: list[Stateful],
        keep: int,
        runtime: Runtime,
        watch: Stopwatch,
        about: Mapping[str, Any],
        average: Averaged | None = None,
        at_start: bool = False,
    ) -> None:
        self.root = root
        self.clock = clock
        self.stateful = stateful
        self.keep = keep
        self.runtime = runtime
        self.watch = watch
        self.about = about
        self.average = average
        self.at_start = at_start
        self._saved_step: int | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        if self.at_start and state.global_step == 0:
            self._save(state, control, parts)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        if self.clock.save_due and not control.should_evaluate:
            self._save(state, control, parts)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        if self.clock.save_due:
            self._save(state, control, parts)
        self.watch.restart()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        if self.clock.interrupted and self._saved_step != state.global_step:
            self._save(state, control, parts, evaluation_pending=True)

    def _save(
        self, state: TrainerState, control: TrainerControl, parts: dict[str, Any], *, evaluation_pending: bool = False
    ) -> None:
        random_states = self.runtime.gather(checkpoints.random_state(self.runtime.processes))
        saved = callback_states(
            self.stateful,
            training_ended=control.should_training_stop and not self.clock.interrupted,
            evaluation_pending=evaluation_pending,
        )
        keep = self.runtime.is_main
        weights = sharding.whole_weights(parts["model"], keep=keep)
        optimizer = sharding.whole_optimizer(parts["optimizer"], keep=keep)
        optimizer = compact.saved_with_rows(parts["optimizer"], optimizer)
        self.runtime.on_main(lambda: self._write(state, parts, weights, optimizer, saved, random_states))
        self._saved_step = state.global_step
        self.watch.restart()

    def _write(
        self,
        state: TrainerState,
        parts: dict[str, Any],
        weights: Mapping[str, Any] | None,
        optimizer: Mapping[str, Any],
        saved: dict[str, Any],
        random_states: list[bytes],
    ) -> None:
        step = state.global_step
        partial = checkpoints.partial_folder(self.root, step)
        last = checkpoints.last_step(self.root)
        goes_on = f"from the untouched checkpoint of step {last}" if last is not None else "from the beginning"
        try:
            with disk_faults(f"the checkpoint of step {step}", self.root):
                shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
                partial.mkdir(parents=True)
                checkpoints.save_random_states(partial, random_states)
                checkpoints.save_weights(parts["model"], partial, weights)
                if self.average is not None:
                    checkpoints.save_average(partial, self.average.tensors())
                checkpoints.save_state(
                    partial,
                    state=state,
                    optimizer=optimizer,
                    scheduler=parts["lr_scheduler"],
                    scaler=getattr(parts["optimizer"], "scaler", None),
                    callbacks=saved,
                )
                checkpoints.publish(self.root, step, keep=self.keep, about=self.about)
        except NlpFinetuneError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise NlpFinetuneError(f"{error} The same command goes on {goes_on}.") from error


def callback_states(stateful: list[Stateful], *, training_ended: bool, evaluation_pending: bool) -> dict[str, Any]:
    """What a checkpoint keeps of the callbacks, and where in a step the run was."""
    return {
        **{type(callback).__name__: callback.state_dict() for callback in stateful},
        "training_ended": training_ended,
        "evaluation_pending": evaluation_pending,
    }
