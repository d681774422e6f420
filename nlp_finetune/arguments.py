"""Recipe -> transformers.TrainingArguments, once, for both engines."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models import zero
from nlp_finetune.recipe import Recipe

if TYPE_CHECKING:
    from transformers import TrainingArguments

OURS = {
    "learning_rate": "optim.learning_rate",
    "weight_decay": "optim.weight_decay",
    "adam_beta1": "optim.beta1",
    "adam_beta2": "optim.beta2",
    "adam_epsilon": "optim.epsilon",
    "max_grad_norm": "optim.max_grad_norm",
    "optim": "optim.name",
    "lr_scheduler_type": "optim.schedule",
    "warmup_steps": "optim.warmup",
    "num_train_epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "per_device_train_batch_size": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.micro_batch_size",
    "per_device_eval_batch_size": "train.eval_batch_size",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "seed": "train.seed",
    "data_seed": "train.seed",
    "eval_strategy": "train.eval_every",
    "eval_steps": "train.eval_every",
    "save_strategy": "train.save_every",
    "save_steps": "train.save_every",
    "save_total_limit": "train.save_total",
    "logging_strategy": "train.log_every",
    "logging_steps": "train.log_every",
    "metric_for_best_model": "train.metric",
    "dataloader_num_workers": "train.workers",
    "activation_checkpointing": "train.gradient_checkpointing",
    "gradient_checkpointing": "train.gradient_checkpointing",
    "train_sampling_strategy": "train.bucket",
    "label_smoothing_factor": "loss.label_smoothing",
    "output_dir": "output_dir",
    "report_to": "train.report_to",
    "run_name": "name",
    "project": "name",
}
"""TrainingArguments that have a key of ours: `train.extra` refuses them and names the key."""

_FIXED = {
    "do_train", "do_eval", "do_predict", "load_best_model_at_end", "greater_is_better", "remove_unused_columns",
    "use_cpu", "disable_tqdm", "push_to_hub", "hub_token", "hub_model_id", "resume_from_checkpoint",
    "logging_nan_inf_filter", "average_tokens_across_devices", "auto_find_batch_size", "accelerator_config",
    "deepspeed", "fsdp", "fsdp_config", "parallelism_config",
}  # fmt: skip
"""TrainingArguments that this package decides itself; `train.extra` refuses them."""

HONOURED_BY_LOOP = {"ddp_find_unused_parameters"}
"""What the `accelerate` engine takes from `train.extra`; anything else it refuses by name."""


def check_extra(recipe: Recipe) -> None:
    """Raise `InputError` for a key of `train.extra` that is unknown, ours, or not the engine's."""
    if not recipe.train.extra:
        return
    from transformers import TrainingArguments

    known = {f.name for f in dataclasses.fields(TrainingArguments) if f.init}
    problems = []
    for key in recipe.train.extra:
        if key in OURS:
            problems.append(f"{key}: set {OURS[key]}")
        elif key in _FIXED:
            problems.append(f"{key}: decided by this package")
        elif key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            problems.append(f"{key}: no such TrainingArgument" + (f"; did you mean {near[0]}?" if near else ""))
        elif recipe.train.engine == "accelerate" and key not in HONOURED_BY_LOOP:
            problems.append(f"{key}: the accelerate engine does not honour it; use train.engine=trainer")
    if problems:
        raise InputError("train.extra: " + "; ".join(problems))


def training_arguments(
    recipe: Recipe,
    *,
    output_dir: Path,
    steps: int,
    micro_batch_size: int,
    micro_batches: int,
    precision: str,
    workers: int,
    on_cpu: bool,
    zero_stage: int | None = None,
) -> TrainingArguments:
    """The arguments of both engines; `zero_stage` is DeepSpeed's, where it is in force.

    The whole run is one epoch of `steps` optimizer steps for them: epochs, logging, evaluation and
    saving are decided by the batch plan and our callbacks.
    """
    from transformers import TrainingArguments

    settings: dict[str, Any] = {
        "output_dir": str(output_dir),
        "max_steps": steps,
        "num_train_epochs": 1,
        "per_device_train_batch_size": micro_batch_size,
        "gradient_accumulation_steps": micro_batches,
        "learning_rate": recipe.optim.learning_rate,
        "weight_decay": recipe.optim.weight_decay,
        "max_grad_norm": recipe.optim.max_grad_norm or 0.0,
        "seed": recipe.train.seed,
        # DeepSpeed casts by itself: the Trainer's bf16 would turn its weights into bf16.
        "bf16": precision == "bf16" and zero_stage is None,
        "fp16": precision == "fp16",
        # accelerate runs DeepSpeed only where it is not told to use the CPU (`strategy.prepare_deepspeed`).
        "use_cpu": on_cpu and zero_stage is None,
        **({} if zero_stage is None else zero.arguments(zero_stage, precision=precision)),
        "dataloader_num_workers": workers,
        # Parameters without a gradient are found and frozen before the wrap, so DDP need not search, unless some
        # get theirs later.
        "ddp_find_unused_parameters": recipe.freeze.gradual is not None,
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        # Both engines get trackers as callbacks (`callbacks.py`); they read these two names.
        "report_to": "none",
        "run_name": output_dir.name,
        "project": recipe.name,
        # Nothing is published that nobody asked for: by default Trackio would copy its page to the Hub.
        "trackio_static_space_id": False,
    }
    return TrainingArguments(**{**settings, **recipe.train.extra})
