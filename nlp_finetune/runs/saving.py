"""Callbacks that save what training has reached: best weights and checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.models import sharding
from nlp_finetune.runs import checkpoints
from nlp_finetune.runs.folder import replaced_folder
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


class BestWeights(TrainerCallback):  # type: ignore[misc]
    """Keeps the best evaluation in the state, and its weights in `checkpoints/best-N`."""

    def __init__(
        self,
        root: Path,
        *,
        metric: str,
        greater_is_better: bool,
        runtime: Runtime,
        delete_former: bool,
    ) -> None:
        self.root = root
        self.metric = metric
        self.greater_is_better = greater_is_better
        self.runtime = runtime
        self.delete_former = delete_former

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
        improved = best is None or (value > best if self.greater_is_better else value < best)
        if not improved:
            return
        state.best_metric, state.best_global_step = value, state.global_step
        weights = sharding.whole_weights(model, keep=self.runtime.is_main)
        if self.runtime.is_main:
            with replaced_folder(checkpoints.best_folder(self.root, state.global_step)) as folder:
                checkpoints.save_weights(model, folder, weights)
            if self.delete_former:
                checkpoints.delete_bests(self.root, but=state.global_step)
        self.runtime.barrier()


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Writes a checkpoint when one is due: after the evaluation of the same step, if there is one.

    Comes last among the callbacks, so that what it saves is their state after this step.
    """

    def __init__(
        self, root: Path, *, clock: SaveClock, stateful: list[Stateful], keep: int, runtime: Runtime, watch: Stopwatch
    ) -> None:
        self.root = root
        self.clock = clock
        self.stateful = stateful
        self.keep = keep
        self.runtime = runtime
        self.watch = watch

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        if self.clock.save_due and not control.should_evaluate:
            self._save(state, control, parts)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        if self.clock.save_due:
            self._save(state, control, parts)
        self.watch.restart()

    def _save(self, state: TrainerState, control: TrainerControl, parts: dict[str, Any]) -> None:
        step, runtime = state.global_step, self.runtime
        folder = checkpoints.partial_folder(self.root, step)
        if runtime.is_main:
            shutil.rmtree(folder, ignore_errors=True)  # left by a process that was killed
            folder.mkdir(parents=True)
        runtime.barrier()
        checkpoints.save_random_state(folder, runtime.rank, runtime.processes)
        weights = sharding.whole_weights(parts["model"], keep=runtime.is_main)
        optimizer = sharding.whole_optimizer(parts["optimizer"], keep=runtime.is_main)
        runtime.barrier()
        if runtime.is_main:
            checkpoints.save_weights(parts["model"], folder, weights)
            states: dict[str, Any] = {type(callback).__name__: callback.state_dict() for callback in self.stateful}
            states["training_ended"] = control.should_training_stop and not self.clock.interrupted
            checkpoints.save_state(
                folder,
                state=state,
                optimizer=optimizer,
                scheduler=parts["lr_scheduler"],
                scaler=getattr(parts["optimizer"], "scaler", None),
                callbacks=states,
            )
            checkpoints.publish(self.root, step, keep=self.keep)
            checkpoints.delete_bests(self.root, but=state.best_global_step)
        runtime.barrier()
        self.watch.restart()
