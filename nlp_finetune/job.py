"""The contract between what builds a run, what fits it and what saves it.

An engine sees a `Job` and nothing else: no recipe, no task. Everything a `Job` holds is an ordinary
object or callable, so either engine (or a test) can drive it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.optim.lr_scheduler import LRScheduler
    from transformers import TrainerCallback, TrainerState, TrainingArguments

    from nlp_finetune.data.batching import BatchPlan
    from nlp_finetune.data.drawing import DrawnRows
    from nlp_finetune.learning.out_of_memory import MemoryGuard

Batch = dict[str, Any]
Objective = Callable[["torch.nn.Module", Batch, "torch.Tensor"], tuple["torch.Tensor", Any]]
"""`(model, micro batch, items in the whole optimizer step) -> (loss, outputs)`.

The loss is the sum over the items of this micro batch divided by the item count of the whole
optimizer step, over all micro batches and processes. Adding the losses of all micro batches and
processes therefore gives the mean, whatever the cut.
"""


@dataclass
class Job:
    """Everything an engine needs to fit a model.

    `train` is indexed by draw number, which `batches.sampler` gives; `batches` decides which rows make up
    which micro batch; `count_items` counts what the loss is averaged over in one micro batch; `score`
    evaluates the model on the validation rows and returns plain metrics, or None where the run was asked to
    stop meanwhile, which ends training; the two factories take the (possibly wrapped) model and the planned
    number of optimizer steps; `on_gradients` is called in each optimizer step, between clipping and the
    optimizer, with the norm of all gradients before clipping; `memory` says in how many parts a micro batch runs
    where memory has run out, and is None where it must run whole.
    """

    model: torch.nn.Module
    args: TrainingArguments
    train: DrawnRows
    collate: Callable[[Sequence[Mapping[str, Any]]], Batch]
    batches: BatchPlan
    objective: Objective
    count_items: Callable[[Batch], int]
    score: Callable[[torch.nn.Module], dict[str, float] | None]
    make_optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer]
    make_scheduler: Callable[[torch.optim.Optimizer, int], LRScheduler]
    callbacks: list[TrainerCallback] = field(default_factory=list)
    memory: MemoryGuard | None = None
    on_gradients: Callable[[float | torch.Tensor | None], None] = lambda norm: None
    processor: Any = None
    resume_from: str | None = None


@dataclass(frozen=True)
class Fitted:
    """What an engine gives back: the trained model, unwrapped, and where training ended."""

    model: torch.nn.Module
    state: TrainerState


@dataclass(frozen=True)
class Result:
    """What `train` gives back.

    `metrics` is the content of `metrics.json`; `already_finished` is true when the folder held the
    same run, complete, and nothing was done.
    """

    output_dir: str
    metrics: dict[str, Any]
    already_finished: bool = False
