"""Callbacks that write a run down: history and progress."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.runs.folder import disk_faults, write_text


class History(TrainerCallback):  # type: ignore[misc]
    """Appends one JSON object a line to `history.jsonl` (main process only).

    `health()` gives what was measured beside the loss of a step, as plain JSON; nothing where it is empty.
    """

    def __init__(self, file: Path, *, health: Callable[[], dict[str, Any]] = dict) -> None:
        self.file = file
        self.health = health

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.rewind(state.global_step)

    def rewind(self, step: int, *, before_evaluation: bool = False) -> None:
        """Drop the lines after the checkpoint that training goes on from: they will be written again."""
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []
        kept = [line for line in lines if _place_of(line) <= (step, not before_evaluation)]
        write_text(self.file, "".join(f"{line}\n" for line in kept))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        if "loss" in logs:
            measured = self.health()
            content = {name: value for name, value in logs.items() if name != "epoch"}
            self._append(state, {**content, "health": measured} if measured else content)

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
        with disk_faults("the history", self.file), open(self.file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def _place_of(line: str) -> tuple[int, bool]:
    """Step of a line of the history, and whether it tells of an evaluation."""
    try:
        content = json.loads(line)
        return int(content["step"]), "validation" in content
    except (ValueError, KeyError, TypeError):  # a line cut by a kill
        return 2**63, True


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
        self.close()

    def close(self) -> None:
        """Take the bar away, also where training failed."""
        if self.bar is not None:
            self.bar.close()
