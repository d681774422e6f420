"""Memory that runs out in mid-run: the step is done again with each micro batch in more parts.

The parts of a micro batch hold its rows, and the loss is a sum over them, so the step is what it would have been with
smaller micro batches from the start; the rows of the optimizer step stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nlp_finetune.errors import NlpFinetuneError


class AgreedOutOfMemoryError(torch.OutOfMemoryError):
    """A forward pass ran out of memory on some process, and every process knows, before any backward pass."""


class OutOfMemory(NlpFinetuneError):
    """Memory ran out where the step cannot be done again with smaller parts."""


class MemoryGuard:
    """In how many parts each micro batch runs; part of every checkpoint.

    `fewest_rows` is the smallest micro batch of any process. `agree(flag)` says whether it holds on any process; None
    where there is one process.
    """

    def __init__(self, *, fewest_rows: int, agree: Callable[[bool], bool] | None, say: Callable[[str], None]) -> None:
        self.parts = 1
        self.fewest_rows = fewest_rows
        self.agree = agree
        self.say = say

    def state_dict(self) -> dict[str, Any]:
        return {"parts": self.parts}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.parts = min(saved["parts"], self.fewest_rows)

    def split(self, step: int) -> None:
        """Run micro batches in twice as many parts from here on. Raises `OutOfMemory` where none can be smaller."""
        if self.parts >= self.fewest_rows:
            raise OutOfMemory(
                f"out of memory in step {step} with micro batches of one row: lower task.max_length, set "
                "train.gradient_checkpointing=on, or take a smaller model."
            )
        self.parts = min(2 * self.parts, self.fewest_rows)
        self.say(
            f"step {step}: out of memory; it is done again with each micro batch in {self.parts} parts, and so are all "
            "steps from here on (the rows of a step stay the same)"
        )

    def guarded(self, objective: Callable[..., Any]) -> Callable[..., Any]:
        """The same objective in training steps; where it runs out of memory on one process, it fails on all."""
        agree = self.agree
        if agree is None:
            return objective

        def run(model: Any, batch: Any, num_items: Any) -> Any:
            if not torch.is_grad_enabled():
                return objective(model, batch, num_items)
            found, failed = None, False
            try:
                found = objective(model, batch, num_items)
            except torch.OutOfMemoryError:
                failed = True
            if agree(failed):
                found = None
                raise AgreedOutOfMemoryError("out of memory in a forward pass")
            return found

        return run
