"""A small Job run by either engine; also a script, for runs on several processes.

torchrun --nproc_per_node 2 tests/engines/trajectory.py SETTINGS.json OUTPUT.json
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset

import nlp_finetune.engines  # noqa: F401  before the first import of transformers

from transformers import TrainerCallback  # isort: skip

from nlp_finetune import strategy
from nlp_finetune.callbacks import make_thawing
from nlp_finetune.data.balancing import BalancedClasses
from nlp_finetune.data.batching import BatchPlan
from nlp_finetune.data.drawing import DrawnRows
from nlp_finetune.data.lengths import tokens_used
from nlp_finetune.data.mixing import MixedTexts, Mixing
from nlp_finetune.engines import hf_trainer, loop
from nlp_finetune.job import Fitted, Job
from nlp_finetune.learning.averaging import WeightAverage, ema_share, swa_share
from nlp_finetune.learning.clipping import ClipByValue
from nlp_finetune.learning.contrast import supervised_contrastive
from nlp_finetune.learning.flow import Flow, RankSeed
from nlp_finetune.learning.health import Health
from nlp_finetune.learning.losses import build_loss
from nlp_finetune.learning.mixing import mixed
from nlp_finetune.learning.optimizers import make_optimizer
from nlp_finetune.learning.out_of_memory import MemoryGuard
from nlp_finetune.learning.patience import EarlyStopping, ReduceOnPlateau
from nlp_finetune.learning.regularizers import (
    PullToStart,
    add_noise,
    adversarial,
    binary_divergence,
    class_divergence,
    r_drop,
)
from nlp_finetune.learning.schedules import make_scheduler
from nlp_finetune.models import (
    adapters,
    freezing,
    groups,
    packing,
    rates,
    recomputing,
    row_attention,
    sharding,
    zero,
)
from nlp_finetune.models.compact import DecayOfTheRest, compact
from nlp_finetune.models.compiled import Compiled, OwnGradients
from nlp_finetune.models.dropout import put_fast_dropout
from nlp_finetune.models.first_token import FirstTokenOnly
from nlp_finetune.runs.saving import Checkpoints
from nlp_finetune.runs.timing import Stopwatch
from nlp_finetune.runtime import Runtime

ROWS, CLASSES = 37, 3


@dataclass(frozen=True)
class Settings:
    """What a trajectory may differ in."""

    engine: str = "trainer"
    loss: str = "cross_entropy"
    batch_size: int = 8
    micro_batches: int = 1
    processes: int = 1
    steps: int = 8
    patience: int | None = None
    dropout: float = 0.0
    changing_rows: bool = False
    adapter: str | None = None
    frozen_layers: int | None = None
    thaw_every: int | None = None
    weights: list[float] | None = None
    optimizer: str = "adamw"
    schedule: str = "linear"
    sharded: bool = False
    zero: int | None = None
    checkpoint: str | None = None
    save_at: int | None = None
    regularizer: str | None = None
    balanced: bool = False
    average: str | None = None
    layer_decay: float = 1.0
    clip_by_value: float | None = None
    recomputes: bool = False
    runs_out: str | None = None
    """Pass, forward or backward, in which memory runs out from the fourth one on, with more than 4 rows."""
    rank_out: int = 0
    compact: bool = False
    max_tokens: int | None = None
    packed: bool = False
    first_token_only: bool = False
    fast_dropout: bool = False
    compiled: bool = False
    gpu: bool = False
    precision: str = "fp32"
    may_wait: bool = True
    """Whether the steps that are not logged may wait for the GPU."""
    max_grad_norm: float = 1.0


def run(settings: Settings) -> dict[str, Any]:
    """Fit and give the training losses, gradient norms and the step at which training ended."""
    with tempfile.TemporaryDirectory() as folder:
        job = build_job(settings, folder)
        fitted = fit(job, settings.engine)
    (measured,) = [callback.lines for callback in job.callbacks if isinstance(callback, _Lines)]
    logs = [entry for entry in fitted.state.log_history if "loss" in entry]
    # What is validated and saved: the average of the weights, where there is one.
    with next((c.applied() for c in job.callbacks if isinstance(c, WeightAverage)), nullcontext()):
        weights = sum(float(sharding.whole(p).double().abs().sum()) for p in fitted.model.parameters())
    return {
        "loss": [entry["loss"] for entry in logs],
        "grad_norm": [entry["grad_norm"] for entry in logs],
        "learning_rate": [entry["learning_rate"] for entry in logs],
        "epoch": [entry["epoch"] for entry in logs],
        "measured": [{what: line[what] for what in ("gradients", "updates")} for line in measured],
        "last_step": fitted.state.global_step,
        "weights": weights,
    }


def fit(job: Job, engine: str) -> Fitted:
    """Run the engine called `engine`."""
    return {"trainer": hf_trainer.fit, "accelerate": loop.fit}[engine](job)


def build_job(settings: Settings, folder: str) -> Job:
    """A two-layer BERT on random rows of different lengths."""
    from transformers import TrainingArguments

    torch.manual_seed(0)
    model = _model(settings)
    table = compact(model, tokens_used(Dataset.from_list(_rows(settings)), besides=[0])) if settings.compact else None
    if settings.fast_dropout:
        put_fast_dropout(model)
        row_attention.use(packing.base_of(model), fast_dropout=True)
    if settings.first_token_only:
        FirstTokenOnly(model, lambda: model(input_ids=torch.ones(2, 5, dtype=torch.long)))
    if settings.packed:
        packing.Packing(model, but_last=settings.first_token_only)
    if settings.regularizer == "neftune":
        add_noise(model, alpha=5.0)
    if settings.recomputes:
        recomputing.turn_on(model)
    if settings.gpu:
        model.cuda()
    plan = BatchPlan(
        [len(row["input_ids"]) for row in _rows(settings)],
        settings.batch_size,
        settings.steps,
        seed=5,
        processes=settings.processes,
        micro_batches=settings.micro_batches,
        balanced=BalancedClasses([row["labels"] for row in _rows(settings)], 5) if settings.balanced else None,
        max_tokens=settings.max_tokens,
    )
    mixing = Mixing(plan.lengths, 5, mixup=1.0) if settings.regularizer == "mixup" else None
    flow = Flow(plan, log_every=1 if settings.may_wait else 4, eval_every=2, save_every=None)
    callbacks: list[Any] = [flow, RankSeed(3, rank=_connect(settings).process_index)]
    if settings.clip_by_value is not None:
        callbacks.append(ClipByValue(settings.clip_by_value))
    if table is not None:
        callbacks.append(DecayOfTheRest(table))
    if settings.regularizer == "l2_sp":
        callbacks.append(PullToStart(model, strength=1.0))
    if settings.schedule == "plateau":
        callbacks += [_BestFirst(), ReduceOnPlateau(patience=1, factor=0.5, say=lambda _: None)]
    if settings.patience is not None:
        callbacks += [_BestFirst(), EarlyStopping(patience=settings.patience, say=lambda _: None)]
    if settings.sharded:
        sharding.shard(
            model, device=torch.device("cpu"), processes=settings.processes, reshard=True, say=lambda _: None
        )
    if settings.compiled:
        Compiled(model, longest=max(plan.lengths), say=lambda _: None)
        callbacks += [OwnGradients()] if settings.gpu else []
    health = Health(
        groups.trained_groups(model), groups.head_of(model), due=flow.logs, gather=_gather if settings.sharded else None
    )
    callbacks += [health, _Lines(health)]
    if not settings.may_wait:
        callbacks = [_Waiting(flow, "default"), *callbacks, _Waiting(flow, "error")]
    objective, memory = _objective(settings), None
    if settings.runs_out is not None:
        agree = None if settings.processes == 1 else lambda flag: any(_gather(flag))
        fewest = settings.batch_size // (settings.processes * settings.micro_batches)
        memory = MemoryGuard(fewest_rows=fewest, agree=agree, say=lambda _: None)
        objective = memory.guarded(_running_out(objective, settings, model))
    starts = None
    if settings.thaw_every is not None:
        thawing = make_thawing(model, settings.thaw_every, plan)
        starts, callbacks = thawing.by_parameter(), [thawing, *callbacks]
    if settings.average is not None:
        share = ema_share(0.8) if settings.average == "ema" else swa_share(plan, start=0.5, every=1)
        callbacks.append(WeightAverage(model, share=share))
    factors = rates.factors(model, layer_decay=settings.layer_decay)
    if settings.save_at is not None:
        callbacks.append(_checkpoints(flow, Path(str(settings.checkpoint)), settings))
    return Job(
        model=model,
        args=TrainingArguments(
            folder,
            max_steps=settings.steps,
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.micro_batches,
            max_grad_norm=settings.max_grad_norm if settings.clip_by_value is None else 0.0,
            use_cpu=settings.zero is None and not settings.gpu,
            bf16=settings.precision == "bf16",
            logging_nan_inf_filter=False,
            **({} if settings.zero is None else zero.arguments(settings.zero, precision="fp32")),
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            report_to="none",
            ddp_find_unused_parameters=settings.thaw_every is not None,
        ),
        train=DrawnRows(_rows(settings), transform=_changed if settings.changing_rows else None, seed=5, mixing=mixing),
        collate=_collate if mixing is None else MixedTexts(_collate, left=False),
        batches=plan,
        objective=objective,
        count_items=lambda batch: int(batch["labels"].numel()),
        score=lambda model: {"accuracy": 0.5},
        make_optimizer=lambda m: make_optimizer(
            m, name=settings.optimizer, learning_rate=1e-3, weight_decay=0.01, starts=starts, factors=factors
        ),
        make_scheduler=lambda o, n: make_scheduler(o, n, name=settings.schedule, warmup=0.25),
        callbacks=callbacks,
        on_gradients=health.on_gradients,
        memory=memory,
        resume_from=settings.checkpoint if settings.save_at is None else None,
    )


def _connect(settings: Settings) -> PartialState:
    if settings.zero is None:
        return PartialState(cpu=not settings.gpu)
    strategy.prepare_deepspeed(os.environ, has_accelerator=False)
    return PartialState(backend="gloo")


def _checkpoints(flow: Flow, folder: Path, settings: Settings) -> Checkpoints:
    """Writes one checkpoint, `folder`, after the step that its name ends in."""
    state = PartialState()
    runtime = Runtime(state.process_index, settings.processes, state.process_index, 1, torch.device("cpu"), 1)
    flow.save_every = settings.save_at
    return Checkpoints(folder.parent, clock=flow, stateful=[], keep=9, runtime=runtime, watch=Stopwatch(), about={})


class _Waiting(TrainerCallback):
    """Lets torch raise where the program waits for the GPU in a step that is not logged, warmed up before."""

    def __init__(self, flow: Flow, mode: str) -> None:
        self.flow, self.mode = flow, mode

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.mode == "error" and state.global_step > 24 and not self.flow.logs(state.global_step + 1):
            torch.cuda.set_sync_debug_mode("error")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.mode == "default" and torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")


class _Lines(TrainerCallback):
    """Keeps what was measured of each step that was logged."""

    def __init__(self, health: Health) -> None:
        self.health = health
        self.lines: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            self.lines.append(self.health.line)


def _gather(value: Any) -> list[Any]:
    values: list[Any] = [None] * PartialState().num_processes
    torch.distributed.all_gather_object(values, value)
    return values


class _BestFirst(Flow):
    """Takes the first evaluation for the best, so that patience runs out."""

    def __init__(self) -> None: ...

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        return control

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        state.best_global_step = state.best_global_step or state.global_step


def _model(settings: Settings) -> torch.nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=1 if settings.loss in ("mse", "huber") else CLASSES,
        hidden_dropout_prob=settings.dropout,
        attention_probs_dropout_prob=settings.dropout,
    )
    model = BertForSequenceClassification(config)
    freezing.freeze(model, settings.frozen_layers, [], False, say=lambda _: None)
    if settings.adapter is None:
        return model
    return adapters.add(
        model, method=settings.adapter, rank=4, alpha=16.0, dropout=settings.dropout, targets="auto", rank_pattern={},
        auto_class="AutoModelForSequenceClassification", seed=7, base=adapters.Base("bert"), say=lambda _: None,
    )  # fmt: skip


def _rows(settings: Settings) -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(1)
    rows = []
    for _ in range(ROWS):
        length = int(torch.randint(4, 12, (1,), generator=random))
        tokens = torch.randint(5, 60, (length,), generator=random).tolist()
        label: Any = tokens[0] % CLASSES
        if settings.loss == "bce":
            label = [float(tokens[0] % 2), float(tokens[1] % 2), 1.0]
        elif settings.loss in ("mse", "huber"):
            label = tokens[0] / 10
        rows.append({"input_ids": tokens, "labels": label})
    return rows


def _changed(row: Mapping[str, Any], random: np.random.Generator) -> dict[str, Any]:
    return {**row, "input_ids": random.integers(5, 60, size=len(row["input_ids"])).tolist()}


def _collate(rows: Any) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    pad = [longest - len(row["input_ids"]) for row in rows]
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * n for row, n in zip(rows, pad, strict=True)]),
        "attention_mask": torch.tensor(
            [[1] * len(row["input_ids"]) + [0] * n for row, n in zip(rows, pad, strict=True)]
        ),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def _running_out(objective: Any, settings: Settings, model: Any) -> Any:
    """The objective on a device that other programs leave less and less memory."""
    calls = [0]

    def run(net: Any, batch: Any, num_items: Any) -> Any:
        calls[0] += 1
        largest = -(-settings.batch_size // (settings.processes * settings.micro_batches)) // 2
        short = (
            calls[0] >= 4
            and len(batch["labels"]) > largest
            and PartialState().process_index == settings.rank_out % settings.processes
        )
        in_forward = short and settings.runs_out == "forward"
        with model.bert.encoder.layer[1].register_forward_hook(_fail) if in_forward else nullcontext():
            loss, outputs = objective(net, batch, num_items)
        if short:
            torch.rand(1)  # what a pass draws before it fails must not matter
            # The head has its gradient by then, the layers below do not.
            outputs.hidden_states[1].register_hook(_fail)
        return loss, outputs

    return run


def _fail(*_: Any) -> None:
    raise torch.OutOfMemoryError("out of memory")


def _objective(settings: Settings) -> Any:
    smoothing = 0.1 if settings.loss == "cross_entropy" else 0.0
    loss = build_loss(settings.loss, label_smoothing=smoothing, weights=settings.weights)

    def objective(model: Any, batch: Any, num_items: Any) -> Any:
        outputs = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            output_hidden_states=settings.runs_out == "backward",
        )
        return loss(outputs.logits, batch["labels"]) / num_items, outputs

    if settings.regularizer == "supervised_contrastive":
        return supervised_contrastive(objective, weight=1.0, temperature=0.3)
    if settings.regularizer == "mixup":
        return mixed(objective, classes=CLASSES)
    if settings.regularizer == "r_drop":
        return r_drop(
            objective, weight=1.0, divergence=binary_divergence if settings.loss == "bce" else class_divergence
        )
    return adversarial(objective, size=1.0) if settings.regularizer == "adversarial" else objective


def main() -> None:
    """Run on as many processes as the launcher started; rank 0 writes the result."""
    settings = Settings(**json.loads(Path(sys.argv[1]).read_text()))
    state = _connect(settings)
    if state.num_processes != settings.processes:
        raise SystemExit(f"{state.num_processes} processes, not {settings.processes}")
    result = run(settings)
    if state.is_main_process:
        Path(sys.argv[2]).write_text(json.dumps({"settings": asdict(settings), **result}))


if __name__ == "__main__":
    main()
