"""The `accelerate` engine: an explicit loop over optimizer steps that can be read on one page.

It fires the same events on the same state objects as transformers.Trainer, in the same order, so
callbacks are written once; a test holds that losses and gradient norms agree step by step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, skip_first_batches
from transformers import DefaultFlowCallback, TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler

from nlp_finetune.engines.loading import number, train_loader
from nlp_finetune.engines.parts import MicroBatches
from nlp_finetune.job import Batch, Fitted, Job
from nlp_finetune.models import sharding
from nlp_finetune.runs import checkpoints


class Loop:
    """One training run of a `Job` under accelerate."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.args = job.args
        precision = "bf16" if job.args.bf16 else "fp16" if job.args.fp16 else "no"
        unused = DistributedDataParallelKwargs(find_unused_parameters=job.args.ddp_find_unused_parameters)
        self.accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=[unused])
        optimizer = job.make_optimizer(job.model)
        self.sharded = sharding.is_sharded(job.model)
        if self.sharded:
            # It places itself and reduces its own gradients: only the precision is prepared.
            self.model = self.accelerator.prepare_model(job.model, device_placement=False, evaluation_mode=True)
            self.optimizer = self.accelerator.prepare(optimizer)
        else:
            self.model, self.optimizer = self.accelerator.prepare(job.model, optimizer)
        # Not prepared: accelerate's wrapper would step it `num_processes` times a step.
        self.scheduler = job.make_scheduler(self.optimizer, job.batches.steps)
        self.state = TrainerState(max_steps=job.batches.steps, num_train_epochs=1)
        # The Trainer compares it with its own when it goes on from here.
        self.state.train_batch_size = job.args.train_batch_size
        self.state.is_world_process_zero = self.accelerator.is_main_process
        self.state.is_local_process_zero = self.accelerator.is_local_main_process
        self.control = TrainerControl()
        self.events = CallbackHandler(
            [DefaultFlowCallback(), *job.callbacks], job.model, job.processor, self.optimizer, self.scheduler
        )
        self.micro_batches = MicroBatches(job, self.accelerator, wrapped=lambda: self.model)
        self._loss_since_log = torch.zeros((), device=self.accelerator.device)
        self._last_logged_step = 0

    def fit(self) -> Fitted:
        """Run all planned optimizer steps, or fewer where a callback asks to stop."""
        if self.job.resume_from is not None:
            self._restore(self.job.resume_from)
        self._fire("on_train_begin")
        self._fire("on_epoch_begin")
        batches = self._micro_batches()
        resume_from = self.job.resume_from
        while self.state.global_step < self.job.batches.steps:
            window = self._window(batches)
            if resume_from is not None:
                # After the first batch is read, as the Trainer does, so that both engines resume alike.
                rank, processes = self.accelerator.process_index, self.accelerator.num_processes
                checkpoints.load_random_state(resume_from, rank, processes)
                resume_from = None
            self._step(window)
            if self.control.should_training_stop:
                break
        self._fire("on_epoch_end")
        self._fire("on_train_end")
        return Fitted(model=self.job.model, state=self.state)

    def _micro_batches(self) -> Iterator[Batch]:
        loader = train_loader(self.job, process=self.accelerator.process_index)
        done = self.state.global_step * self.args.gradient_accumulation_steps
        return iter(skip_first_batches(loader, done) if done else loader)

    def _window(self, batches: Iterator[Any]) -> list[Batch]:
        """The micro batches of the next optimizer step."""
        if self.job.batches.max_tokens is not None:
            window: list[Batch] = next(batches)
            return window
        return list(islice(batches, self.args.gradient_accumulation_steps))

    def _step(self, window: list[Batch]) -> None:
        """One optimizer step over the micro batches of this process."""
        self._fire("on_step_begin")
        # Filled where it is: a number copied from here would make the step wait for the device.
        items = torch.full((), sum(map(self.job.count_items, window)), device=self.accelerator.device)
        items = self.accelerator.reduce(items, "sum")
        self.micro_batches.begin(self.state.global_step)
        for position, batch in enumerate(window):
            is_last = position == len(window) - 1
            # Shards of gradients are added up in each micro batch: whole ones would fill the memory saved.
            with nullcontext() if is_last or self.sharded else self.accelerator.no_sync(self.model):
                self._loss_since_log += self.micro_batches.run(batch, lambda part: self._accumulate(part, items))
            if not is_last:
                self._fire("on_substep_end")
        clip = self.args.max_grad_norm or float("inf")
        grad_norm = self.accelerator.clip_grad_norm_(self.model.parameters(), clip)
        self.job.on_gradients(grad_norm)
        self._fire("on_pre_optimizer_step")
        self.optimizer.step()
        self._fire("on_optimizer_step")
        learning_rate = float(self.scheduler.get_last_lr()[0])
        if not self.accelerator.optimizer_step_was_skipped:
            self.scheduler.step()
        self.model.zero_grad()
        self.state.global_step += 1
        self.state.epoch = self.state.global_step / self.job.batches.steps
        self._fire("on_step_end")
        if self.control.should_log:
            self._log_training(grad_norm, learning_rate)
        if self.control.should_evaluate:
            self._evaluate()

    def _accumulate(self, batch: Batch, items: torch.Tensor) -> torch.Tensor:
        self.model.train()
        device = self.accelerator.device
        batch = {k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in batch.items()}
        loss, _ = self.job.objective(self.model, batch, items)
        # Data-parallel wrappers average gradients over processes; the objective wants their sum.
        loss = loss * self.accelerator.num_processes
        self.accelerator.backward(loss)
        detached: torch.Tensor = loss.detach()
        return detached

    def _log_training(self, grad_norm: float | torch.Tensor | None, learning_rate: float) -> None:
        steps = self.state.global_step - self._last_logged_step
        loss = self.accelerator.gather(self._loss_since_log.reshape(1)).mean().item() / steps
        self._loss_since_log.zero_()
        self._last_logged_step = self.state.global_step
        self._log({"loss": loss, "grad_norm": number(grad_norm), "learning_rate": learning_rate})

    def _evaluate(self) -> None:
        scores = self.job.score(self.job.model)
        if scores is None:  # asked to stop meanwhile
            self.control.should_evaluate, self.control.should_training_stop = False, True
            return
        metrics = {f"eval_{name}": value for name, value in scores.items()}
        self._log(metrics)
        self._fire("on_evaluate", metrics=metrics)

    def _log(self, logs: dict[str, float]) -> None:
        if self.state.epoch is not None:
            logs["epoch"] = self.state.epoch
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self._fire("on_log", logs=logs)

    def _fire(self, event: str, **extra: Any) -> None:
        self.control = getattr(self.events, event)(self.args, self.state, self.control, **extra)

    def _restore(self, folder: str) -> None:
        """Take model, optimizer, scheduler, scaler and position from a checkpoint of either engine."""
        checkpoints.load_weights(self.job.model, folder)
        checkpoints.load_optimizer(folder, self.optimizer, self.scheduler, self.accelerator.scaler)
        restored = checkpoints.load_trainer_state(folder)
        self.state.global_step = self._last_logged_step = restored.global_step
        self.state.epoch = restored.epoch
        self.state.log_history = restored.log_history
        self.state.best_metric = restored.best_metric
        self.state.best_global_step = restored.best_global_step


def fit(job: Job) -> Fitted:
    """Train `job.model` in an explicit loop, from `job.resume_from` where that is set."""
    return Loop(job).fit()
