"""The data loader that both engines read, one per process."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from nlp_finetune.job import Job


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
