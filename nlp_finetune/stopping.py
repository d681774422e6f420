"""Stopping a run from outside: signals and a time limit.

While data are prepared there is nothing to save, so a request ends the run at once. From then on it
is remembered, and all processes agree on one place to act on it: the end of an optimizer step, or
the next batch of an evaluation.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from nlp_finetune.errors import NlpFinetuneError, StoppedError
from nlp_finetune.recipe import Recipe
from nlp_finetune.recipe.durations import seconds

_SAME_REQUEST_S = 1.0
"""torchrun hands the Ctrl-C of a terminal on to workers that have it already: this soon it is not a second one."""


class Interrupted(BaseException):
    """Raised on every process alike where an evaluation was left because the run is to stop.

    Not an `Exception`: libraries that catch those must not take it for a failure of their own.
    """


class StopRequest:
    """Remembers that a signal or the time limit asked the run to stop; a second Ctrl-C stops at once.

    Use as a context manager; the previous handlers come back at its end. Until `held`, a request
    raises KeyboardInterrupt, which leaves the block as `StoppedError`. `limit_s` counts from the
    beginning of the block.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self, *, limit_s: float | None = None, limit_name: str = "the time limit") -> None:
        self.reason: str | None = None
        """Name of the signal, or of the limit."""
        self.at_once = False
        """Whether a second Ctrl-C came."""
        self.announces = True
        """Whether this process says that it has understood."""
        self._limit_s = limit_s
        self._limit_name = limit_name
        self._held = self._has_raised = False
        self._asked_at = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may handle signals
        for number in self.SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        if self._limit_s is not None:
            self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._note)
            signal.setitimer(signal.ITIMER_REAL, self._limit_s)
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self.release()
        if self.ended_early(error):
            raise StoppedError(self.early_message) from error

    def ended_early(self, error: BaseException | None) -> bool:
        """Whether an error is what a request came to while there was nothing to save.

        What else than KeyboardInterrupt is raised then comes from a library, or from another process
        that has stopped.
        """
        stopped = isinstance(error, KeyboardInterrupt) or (
            isinstance(error, Exception) and not isinstance(error, NlpFinetuneError)
        )
        return stopped and self._has_raised and not self.at_once

    @property
    def early_message(self) -> str:
        """What to say of a run that ended early."""
        return (
            f"stopped by {self.reason} before training went on: there was nothing to save. "
            "The same command starts again."
        )

    def release(self) -> None:
        """Give the signals back to whoever had them."""
        if signal.SIGALRM in self._previous:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Remember requests instead of raising them, because there is something to save."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.reason is not None:
            if number == signal.SIGINT and time.monotonic() - self._asked_at > _SAME_REQUEST_S:
                self.at_once = True
                raise KeyboardInterrupt
            return
        self.reason = self._limit_name if number == signal.SIGALRM else signal.Signals(number).name
        self._asked_at = time.monotonic()
        if not self._held:
            self._has_raised = True
            raise KeyboardInterrupt
        if self.announces:
            # Not through a stream: a handler may run in the middle of another write to it.
            os.write(2, f"\n{self.reason}: saving a checkpoint; Ctrl-C again stops at once\n".encode())


def stop_request(recipe: Recipe) -> StopRequest:
    """What asks a run of this recipe to stop: signals, and its time limit."""
    limit = recipe.train.max_time
    return StopRequest(limit_s=None if limit is None else seconds(limit), limit_name=f"train.max_time={limit}")


def command_with(output_dir: object) -> str:
    """The command line of this process with `output_dir` set: what goes on with the run."""
    program = os.path.basename(sys.argv[0])
    if program not in ("run.py", "nlp-finetune"):
        return f"the same recipe with output_dir={output_dir}"
    words = [word for word in sys.argv[1:] if not word.startswith("output_dir=")]
    started = "python run.py" if program == "run.py" else program
    if program == "run.py" and ("RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ):
        started = "accelerate launch run.py"
    return f"{started} {shlex.join([*words, f'output_dir={output_dir}'])}"
