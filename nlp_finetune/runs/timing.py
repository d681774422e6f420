"""Where the time of training goes, in both engines, by their events alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

PARTS = ("data", "forward", "backward", "optimizer", "evaluation", "saving")
"""data: waiting for batches; forward: moving them to the device too; backward: clipping of gradients too;
saving: best weights, checkpoints and the report."""


class Laps:
    """Seconds by part, counted from one lap to the next.

    On a GPU the laps are events in its stream: what the GPU does between two of them, waiting included.
    They are read only when `settle` is called, so that no step waits for them.
    """

    def __init__(self, *, cuda: bool) -> None:
        self.cuda = cuda
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._last: Any = None
        self._pending: list[tuple[str, Any]] = []

    def restart(self) -> None:
        """Leave out what was before."""
        self.settle()
        self._last = self._now()

    def lap(self, part: str) -> None:
        """The time since the last lap was spent on `part`."""
        if self._last is None:
            return
        now = self._now()
        if self.cuda:
            self._pending.append((part, now))
        else:
            self.seconds[part] += now - self._last
            self._last = now

    def settle(self) -> None:
        """Count what is pending; waits for a GPU to come to the last lap."""
        if not self._pending:
            return
        self._pending[-1][1].synchronize()
        for part, event in self._pending:
            self.seconds[part] += self._last.elapsed_time(event) / 1000
            self._last = event
        self._pending.clear()

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


class Stopwatch(TrainerCallback):  # type: ignore[misc]
    """Seconds spent in training steps, data loading included, and the split of all time by part.

    Comes before the callbacks that save, the last of which calls `restart`.
    """

    def __init__(self, *, cuda: bool = False) -> None:
        self.seconds = 0.0
        self.laps = Laps(cuda=cuda)
        self._mark = 0.0
        self._in_step = False

    @property
    def split(self) -> dict[str, float]:
        """Seconds by part so far."""
        self.laps.settle()
        return dict(self.laps.seconds)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "split": self.split}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.seconds = saved["seconds"]
        self.laps.seconds |= saved.get("split", {})

    def timed(self, objective: Callable[..., Any]) -> Callable[..., Any]:
        """The same objective; its time in training steps counts as forward."""

        def measured(*arguments: Any) -> Any:
            result = objective(*arguments)
            if self._in_step:
                self.laps.lap("forward")
            return result

        return measured

    def restart(self) -> None:
        """The time since the last step was spent on evaluating, which is counted already, and saving."""
        self.laps.lap("saving")
        self._mark = time.perf_counter()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._mark = time.perf_counter()
        self.laps.restart()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._in_step = True
        self.laps.lap("data")

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.laps.lap("backward")

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.laps.lap("backward")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._in_step = False
        self.laps.lap("optimizer")
        now = time.perf_counter()
        self.seconds += now - self._mark
        self._mark = now

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # The engines have just waited for the loss, so a GPU has come this far.
        self.laps.settle()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.laps.lap("evaluation")
