"""The `trainer` engine: transformers.Trainer, told by a `Job` what to do.

Only documented methods are overridden, each to call the Job. The Trainer sees the whole run as one
epoch: the plan of batches decides where epochs end, and callbacks decide when to log, evaluate and save.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerControl

from nlp_finetune.engines.loading import number, train_loader
from nlp_finetune.engines.parts import MicroBatches
from nlp_finetune.job import Batch, Fitted, Job
from nlp_finetune.models import sharding, zero
from nlp_finetune.runs import checkpoints


class JobTrainer(Trainer):  # type: ignore[misc]
    """transformers.Trainer driven by a `Job`."""

    # The objective divides by the items of the whole optimizer step, over accumulation and processes.
    loss_is_scaled_for_ga = True
    optimizer: Any
    lr_scheduler: Any
    control: TrainerControl

    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__(
            model=job.model,
            args=job.args,
            data_collator=job.collate,
            train_dataset=job.train,
            processing_class=job.processor,
            callbacks=job.callbacks,
        )
        self.remove_callback(PrinterCallback)
        self.micro_batches = MicroBatches(job, self.accelerator, wrapped=lambda: self.model_wrapped)

    def get_train_dataloader(self) -> DataLoader[Any]:
        return train_loader(self.job, process=self.args.process_index)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = self.job.make_optimizer(self.model if model is None else model)
            if self.is_deepspeed_enabled:
                zero.remember(self.optimizer)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = self.job.make_scheduler(optimizer or self.optimizer, num_training_steps)
        return self.lr_scheduler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor]:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        parts = [part for batch in batches for part in _parts(batch)]
        # Filled where it is: a number copied from here would make the step wait for the device.
        items = torch.full((), sum(map(self.job.count_items, parts)), device=device)
        self.micro_batches.begin(self.state.global_step)
        return batches, self.accelerator.reduce(items, "sum")

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        # With a budget of tokens the Trainer sees a step as one batch: it can't take another number of them each time.
        *parts, last = _parts(inputs)
        whole = super().training_step

        def run(batch: Batch) -> torch.Tensor:
            return self.micro_batches.run(batch, lambda part: whole(model, part, num_items_in_batch))

        losses = []
        for part in parts:
            with self._defer_fsdp_gradient_reduction() if self._is_sharded else self.accelerator.no_sync(model):
                losses.append(run(part))
            self.control = self.callback_handler.on_substep_end(self.args, self.state, self.control)
        losses.append(run(last))
        return torch.stack(losses).sum() if parts else losses[0]

    def floating_point_ops(self, inputs: Any) -> int:
        return sum(super(JobTrainer, self).floating_point_ops(part) for part in _parts(inputs))

    @property
    def _is_sharded(self) -> bool:
        return sharding.is_sharded(self.job.model)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        loss, outputs = self.job.objective(model, inputs, num_items_in_batch)  # type: ignore[arg-type]
        # Data-parallel wrappers average gradients over processes; the objective wants their sum.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.job.on_gradients(norm)
        return number(norm) if sharding.is_sharded(self.model) else norm

    # A sharded model: the Trainer trains one that transformers sharded while loading, and cannot resume it.

    def _defer_fsdp_gradient_reduction(self) -> AbstractContextManager[None]:
        # Shards of gradients are added up in each micro batch: whole ones would fill the memory saved.
        return nullcontext()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if not sharding.is_sharded(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            checkpoints.load_weights(self.model, resume_from_checkpoint)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        if not self.is_deepspeed_enabled:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        # DeepSpeed would look for a checkpoint of its own, which as many processes have to read as wrote it.
        if resume_from_checkpoint is not None:
            checkpoints.load_weights(self.model, resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        if resume_from_checkpoint is not None:
            checkpoints.load_optimizer(resume_from_checkpoint, self.optimizer, self.lr_scheduler, None)
        return prepared

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # Also of a model that is not sharded: some of its states may be those of a table's rows in use.
        if checkpoint is not None:
            checkpoints.load_optimizer(checkpoint, self.optimizer, self.lr_scheduler, None)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        scores = self.job.score(self.model)
        if scores is None:  # asked to stop meanwhile
            self.control.should_evaluate, self.control.should_training_stop = False, True
            return {}
        metrics = {f"eval_{name}": value for name, value in scores.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _parts(batch: Any) -> list[Batch]:
    """The micro batches in what the loader gives: itself, or all those of a step."""
    return batch if isinstance(batch, list) else [batch]


def fit(job: Job) -> Fitted:
    """Train `job.model` with transformers.Trainer, from `job.resume_from` where that is set."""
    trainer = JobTrainer(job)
    try:
        trainer.train(resume_from_checkpoint=job.resume_from)
    finally:
        if trainer.is_deepspeed_enabled:
            zero.leave()
    return Fitted(model=trainer.model, state=trainer.state)
