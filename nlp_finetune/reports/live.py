"""The page of a run while it trains: a callback of both engines that draws it at each evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.models.summary import layer_groups
from nlp_finetune.reports.page import write_report
from nlp_finetune.reports.reading import read
from nlp_finetune.runs.folder import RunFolder, write_json

_MOST_OF_THE_TIME = 0.05
"""Share of the time that drawing may take: evaluations may follow each other faster than a page is drawn."""


class LiveReport(TrainerCallback):  # type: ignore[misc]
    """Writes progress.json and report.html at the start, at evaluations and at the end of training.

    Main process only; comes after the callback that writes the history. An evaluation that comes soon after the
    last drawing, measured by how long that took, leaves the page as it is. `time_split` gives seconds by part so far.
    Whatever goes wrong with the page is said once, and training goes on.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        metric: str,
        greater_is_better: bool,
        time_split: Callable[[], dict[str, float]],
        say: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.metric = metric
        self.greater_is_better = greater_is_better
        self.time_split = time_split
        self.say = say
        self.trained: list[dict[str, Any]] = []
        self._flags: list[bool] = []
        self._failed = False
        self._due_at = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        # What trained before an interruption, up to the checkpoint that training resumes from.
        earlier = read(self.folder).progress.get("trained") or []
        self.trained = [change for change in earlier if state.global_step and change["step"] <= state.global_step]
        self._note_trained(state, model)
        self._draw(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        self._note_trained(state, model)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._draw(state, if_due=True)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._draw(state)

    def _note_trained(self, state: TrainerState, model: Any) -> None:
        """Note which parts of the model are trained from this step on, where that has changed."""
        flags = [parameter.requires_grad for parameter in model.parameters()]
        if flags == self._flags:
            return
        self._flags = flags
        groups = [
            {"name": group.name, "kind": group.kind, "parameters": group.parameters, "trainable": group.trainable}
            for group in layer_groups(model)
        ]
        if not self.trained or self.trained[-1]["groups"] != groups:
            self.trained.append({"step": state.global_step, "groups": groups})

    def _draw(self, state: TrainerState, *, if_due: bool = False) -> None:
        begun = time.monotonic()
        try:
            write_json(
                self.folder.progress,
                {
                    "step": state.global_step,
                    "steps": state.max_steps,
                    "best_step": state.best_global_step,
                    "metric": self.metric,
                    "greater_is_better": self.greater_is_better,
                    "time_split": {part: round(spent, 3) for part, spent in self.time_split().items()},
                    "trained": self.trained,
                },
            )
            if if_due and begun < self._due_at:
                return
            write_report(self.folder)
            now = time.monotonic()
            self._due_at = now + (now - begun) / _MOST_OF_THE_TIME
        except Exception as error:
            if not self._failed:
                self.say(f"report.html could not be written ({type(error).__name__}: {error}); training goes on")
            self._failed = True


def write_final(folder: RunFolder, say: Callable[[str], None]) -> None:
    """Write the page of a run that has ended, however; a failure is said and nothing more."""
    try:
        write_report(folder)
    except Exception as error:
        say(f"report.html could not be written ({type(error).__name__}: {error})")
