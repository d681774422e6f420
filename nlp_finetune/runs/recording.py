"""Callbacks that write a run down: history, progress, best weights, checkpoints, time."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.runs import checkpoints
from nlp_finetune.runs.folder import replaced_folder
from nlp_finetune.runtime import Runtime


class Stateful(Protocol):
    """A callback whose state belongs into a checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, saved: dict[str, Any]) -> None: ...


class SaveClock(Protocol):
    """Whatever decides when a checkpoint is due (`learning.flow.Flow`)."""

    save_due: bool
    interrupted: bool


class Stopwatch(TrainerCallback):  # type: ignore[misc]
    """Seconds spent in training steps, data loading included, evaluation and saving left out."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._mark = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.seconds = saved["seconds"]

    def restart(self) -> None:
        """Leave out the time since the last step: it was spent elsewhere."""
        self._mark = time.perf_counter()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.restart()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        now = time.perf_counter()
        self.seconds += now - self._mark
        self._mark = now


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
        if self.runtime.is_main:
            with replaced_folder(checkpoints.best_folder(self.root, state.global_step)) as folder:
                checkpoints.save_weights(model, folder)
            if self.delete_former:
                checkpoints.delete_bests(self.root, but=state.global_step)
        self.runtime.barrier()


class History(TrainerCallback):  # type: ignore[misc]
    """Appends one JSON object a line to `history.jsonl` (main process only)."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # Lines after the checkpoint that training resumes from will be written again.
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []
        kept = [line for line in lines if _step_of(line) <= state.global_step]
        self.file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        if "loss" in logs:
            self._append(state, {name: value for name, value in logs.items() if name != "epoch"})

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        scores = {name.removeprefix("eval_"): v for name, v in metrics.items() if name.startswith("eval_")}
        self._append(state, {"validation": scores})

    def _append(self, state: TrainerState, content: dict[str, Any]) -> None:
        line = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 6), **content}
        with open(self.file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line cut by a kill
        return 2**63


class Progress(TrainerCallback):  # type: ignore[misc]
    """A bar with rate and time left, and one line an evaluation (main process only)."""

    def __init__(self, say: Callable[[str], None], *, metric: str) -> None:
        self.say = say
        self.metric = metric
        self.bar: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="train", unit="step", mininterval=0.5, leave=False
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        if "loss" in logs:
            self.bar.set_postfix_str(f"loss {logs['loss']:.4f}", refresh=False)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        shown = ", ".join(
            f"{name} {metrics[f'eval_{name}']:.4f}"
            for name in dict.fromkeys(("loss", self.metric))
            if f"eval_{name}" in metrics
        )
        best = " (best so far)" if state.best_global_step == state.global_step else ""
        self.say(f"epoch {state.epoch:.2f}, step {state.global_step}/{state.max_steps}: validation {shown}{best}")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.close()


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
        runtime.barrier()
        if runtime.is_main:
            checkpoints.save_weights(parts["model"], folder)
            states: dict[str, Any] = {type(callback).__name__: callback.state_dict() for callback in self.stateful}
            states["training_ended"] = control.should_training_stop and not self.clock.interrupted
            checkpoints.save_state(
                folder,
                state=state,
                optimizer=parts["optimizer"],
                scheduler=parts["lr_scheduler"],
                scaler=getattr(parts["optimizer"], "scaler", None),
                callbacks=states,
            )
            checkpoints.publish(self.root, step, keep=self.keep)
            checkpoints.delete_bests(self.root, but=state.best_global_step)
        runtime.barrier()
        self.watch.restart()
