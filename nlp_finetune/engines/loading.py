"""What both engines share: the data loader of a process, and a number from a sharded tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from nlp_finetune.data.drawing import DrawnRows
from nlp_finetune.job import Batch, Job
from nlp_finetune.models.sharding import whole


def train_loader(job: Job, *, process: int) -> DataLoader[Any]:
    """Micro batches of one process in the plan's order; with a budget of tokens, lists of those of a step.

    The loader draws from a generator of its own, so that making it leaves torch's global random
    state, and with it dropout, untouched.
    """
    if job.batches.max_tokens is not None:
        return DataLoader(
            _Windows(job.train),  # type: ignore[arg-type]
            batch_sampler=job.batches.sampler(process),
            collate_fn=partial(_collate_each, job.collate),
            **_settings(job),
        )
    return DataLoader(
        job.train,  # type: ignore[arg-type]  # a data set by its methods, not by its class
        batch_sampler=job.batches.sampler(process),
        collate_fn=job.collate,
        **_settings(job),
    )


def _settings(job: Job) -> dict[str, Any]:
    return {
        "num_workers": job.args.dataloader_num_workers,
        "pin_memory": job.args.device.type == "cuda",
        "persistent_workers": job.args.dataloader_num_workers > 0,
        "generator": torch.Generator().manual_seed(job.args.seed),
    }


class _Windows:
    """Training rows by lists of draw numbers: all micro batches of an optimizer step at once."""

    def __init__(self, rows: DrawnRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, window: Sequence[Sequence[int]]) -> list[list[dict[str, Any]]]:
        return [self.rows.__getitems__(draws) for draws in window]


def _collate_each(collate: Callable[[Any], Batch], window: Sequence[Any]) -> list[Batch]:
    return [collate(rows) for rows in window]


def number(value: float | torch.Tensor | None) -> float:
    """A scalar as a plain number; of a sharded one, on all processes."""
    if torch.is_tensor(value):
        value = whole(value)
    return float(value or 0.0)
