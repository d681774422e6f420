"""Memory that the process keeps and does not need is given back between two steps, before it adds up."""

from __future__ import annotations

from collections.abc import Callable

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_EXCESS = 1.25
"""How many times what a step needs may be resident."""


class ExcessMemory(TrainerCallback):  # type: ignore[misc]
    """Gives free memory back to the system where much more is resident than a step needs.

    For micro batches that need about as much each: tensors of ever other sizes leave gaps in memory that is kept, and
    what lies between them grows. What one needs is resident after the first, and after each that begins with nothing
    to spare.
    `resident()` gives bytes, `give_back()` returns what is free.
    """

    def __init__(self, *, resident: Callable[[], int], give_back: Callable[[], None]) -> None:
        self.resident = resident
        self.give_back = give_back
        self._needed = 0
        self._is_fresh = True

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._look()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self._look()

    def _look(self) -> None:
        now = self.resident()
        if self._is_fresh:
            self._needed = max(self._needed, now)
        self._is_fresh = now > _EXCESS * self._needed
        if self._is_fresh:
            self.give_back()
