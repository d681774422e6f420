"""Micro batches run whole, or in parts once memory has run out; for both engines."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from nlp_finetune.job import Batch, Job
from nlp_finetune.learning.out_of_memory import AgreedOutOfMemoryError, OutOfMemory

Run = Callable[[Batch], torch.Tensor]
"""Forward and backward pass of a batch; gives its loss, detached."""


class MicroBatches:
    """The micro batches of this process in one optimizer step, in the order in which they run.

    `wrapped()` is the model as it is trained, inside what shares gradients among processes.
    """

    def __init__(self, job: Job, accelerator: Accelerator, *, wrapped: Callable[[], torch.nn.Module]) -> None:
        self.job = job
        self.accelerator = accelerator
        self.process: int = accelerator.process_index
        self.wrapped = wrapped
        self._step = 0
        self._position = 0
        self._random: tuple[torch.Tensor, torch.Tensor | None] | None = None

    def begin(self, step: int) -> None:
        """The micro batches that follow are those of optimizer step `step`, counted from 0."""
        self._step, self._position = step, 0

    def run(self, batch: Batch, one: Run) -> torch.Tensor:
        """Run the next micro batch, in as many parts as it takes; gives its loss."""
        guard = self.job.memory
        if guard is None:
            return one(batch)
        if self._position == 0:
            self._random = _random_state()
        position, self._position = self._position, self._position + 1
        # Parts that are known to be needed; another try does the whole step again.
        first = position
        while True:
            try:
                return self._run_from(first, position, batch, one)
            except AgreedOutOfMemoryError:
                pass
            except torch.OutOfMemoryError:
                if guard.agree is not None:
                    # Gradients may be half shared out: the others wait for what never comes.
                    raise OutOfMemory(
                        f"out of memory in the backward pass of step {self._step + 1}, on process {self.process}."
                    ) from None
            # Outside the handler, which would keep the tensors of the failed pass alive.
            self._make_room(one)
            guard.split(self._step + 1)
            first = 0

    def _run_from(self, first: int, last: int, batch: Batch, one: Run) -> torch.Tensor:
        """Run micro batches `first` to `last`, of which `batch` is the last; gives the loss of the last."""
        for position in range(first, last):
            for part in self._parts(position):
                with self.accelerator.no_sync(self.wrapped()):
                    one(part)
        if self.job.memory is None or self.job.memory.parts == 1:
            return one(batch)
        parts = list(self._draws(last))
        total: torch.Tensor | None = None
        for number, draws in enumerate(parts):
            with nullcontext() if number == len(parts) - 1 else self.accelerator.no_sync(self.wrapped()):
                loss = one(self._collated(draws))
            total = loss if total is None else total + loss
        assert total is not None
        return total

    def _parts(self, position: int) -> Iterator[Batch]:
        return map(self._collated, self._draws(position))

    def _draws(self, position: int) -> list[np.ndarray]:
        draws = self.job.batches.micro_batch_draws(self._step, self.process)[position]
        parts = 1 if self.job.memory is None else self.job.memory.parts
        return [part for part in np.array_split(draws, parts) if len(part)]

    def _collated(self, draws: np.ndarray) -> Batch:
        return self.job.collate(self.job.train.__getitems__(draws.tolist()))

    def _make_room(self, one: Run) -> None:
        """Forget the failed step: its gradients, what its passes kept, and the random numbers that it drew."""
        self.wrapped().zero_grad()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.job.memory is not None and self.job.memory.agree is not None:
            self._settle(one)
        if self._random is not None:
            torch.set_rng_state(self._random[0])
            if self._random[1] is not None:
                torch.cuda.set_rng_state(self._random[1])

    def _settle(self, one: Run) -> None:
        """Run one row on every process, so that DDP is everywhere in the state that follows a backward pass.

        A forward pass that was given up has made it expect gradients, and one that failed has not: processes that
        differ in this wait for each other for ever.
        """
        model: Any = self.wrapped()
        model.require_forward_param_sync = True
        one(self._collated(self._draws(0)[0][:1]))
        model.zero_grad()


def _random_state() -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None
