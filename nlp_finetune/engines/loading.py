"""What both engines share: the data loader of a process, and a number from a sharded tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from nlp_finetune.job import Job
from nlp_finetune.models.sharding import whole


def train_loader(job: Job, *, process: int) -> DataLoader[Any]:
    """Micro batches of one process in the plan's order.

    The loader draws from a generator of its own, so that making it leaves torch's global random
    state, and with it dropout, untouched.
    """
    return DataLoader(
        job.train,  # type: ignore[arg-type]  # a data set by its methods, not by its class
        batch_sampler=job.batches.sampler(process),
        collate_fn=job.collate,
        num_workers=job.args.dataloader_num_workers,
        pin_memory=job.args.device.type == "cuda",
        persistent_workers=job.args.dataloader_num_workers > 0,
        generator=torch.Generator().manual_seed(job.args.seed),
    )


def number(value: float | torch.Tensor | None) -> float:
    """A scalar as a plain number; of a sharded one, on all processes."""
    if torch.is_tensor(value):
        value = whole(value)
    return float(value or 0.0)
