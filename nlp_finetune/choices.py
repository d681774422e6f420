"""Choices of a recipe that only data and machine can judge: loss, metric, precision, optimizer, batch size."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING

from nlp_finetune import augmenting
from nlp_finetune.data.balancing import BalancedClasses
from nlp_finetune.errors import InputError
from nlp_finetune.learning import class_weights
from nlp_finetune.learning.contrast import supervised_contrastive
from nlp_finetune.learning.losses import WEIGHTED, Loss, build_loss
from nlp_finetune.learning.optimizers import ELEMENTWISE, check_available
from nlp_finetune.learning.precision import choose_precision
from nlp_finetune.learning.regularizers import Objective, adversarial, binary_divergence, class_divergence, r_drop
from nlp_finetune.models.own_head import OwnHead
from nlp_finetune.recipe import Head, Recipe, Regularize
from nlp_finetune.recipe import Loss as LossSection
from nlp_finetune.runtime import Runtime
from nlp_finetune.strategy import SHARDED
from nlp_finetune.tasks import base

if TYPE_CHECKING:
    from datasets import Dataset


_MOST_NAMED = 10


def check(recipe: Recipe, task: base.BaseTask, runtime: Runtime) -> None:
    """Raise `InputError` for a choice that does not fit the task's labels or this machine."""
    _check_loss(recipe.loss, task, head_bias=recipe.model.head_bias)
    _check_regularizers(recipe, task, runtime)
    _check_sampler(recipe, task)
    augmenting.check(recipe.augment, task, workers=recipe.train.workers)
    metrics = ("loss", *task.metric_names())
    if recipe.train.metric not in ("auto", *metrics):
        near = difflib.get_close_matches(recipe.train.metric, metrics, n=1)
        raise InputError(
            f"train.metric {recipe.train.metric}: not among this task's metrics ({', '.join(metrics)})"
            + (f"; did you mean {near[0]}?" if near else ".")
        )
    if recipe.head is not None and recipe.lora is not None:
        raise InputError(
            "head: not together with lora: peft finds a base by its family's own class. Leave one of them out."
        )
    if recipe.lora is not None and recipe.freeze.is_set:
        raise InputError(
            "freeze: lora freezes everything but its adapters and the head already; leave one of them out."
        )
    if recipe.freeze.cache == "on" and recipe.regularize.mixes is not None:
        raise InputError(f"freeze.cache on: regularize.{recipe.regularize.mixes} mixes rows; use freeze.cache=auto.")
    if recipe.freeze.cache == "on" and (recipe.regularize.adversarial or recipe.regularize.neftune):
        raise InputError("freeze.cache on: regularize changes the word embeddings in each step; use freeze.cache=auto.")
    _check_renewed(recipe)
    choose_precision(recipe.train.precision, runtime.device, lambda _: None)
    check_available(recipe.optim.name, runtime.device)
    _check_strategy(recipe, runtime)
    if recipe.train.batch_size < runtime.processes:
        raise InputError(
            f"train.batch_size {recipe.train.batch_size} is smaller than the {runtime.processes} processes: "
            "each needs a row in every optimizer step."
        )


def _check_renewed(recipe: Recipe) -> None:
    """Where layers can't be drawn anew."""
    if recipe.optim.reinit_top_layers is None:
        return
    if recipe.lora is not None:
        raise InputError("optim.reinit_top_layers: lora leaves the layers as they are, and these would stay random.")
    if recipe.model.checkpoint.startswith("scratch:"):
        raise InputError("optim.reinit_top_layers: nothing of a scratch: model is pretrained; leave it null.")


def _check_strategy(recipe: Recipe, runtime: Runtime) -> None:
    """What the strategy of the processes cannot do."""
    if runtime.strategy not in SHARDED:
        return
    name = "FSDP" if runtime.strategy == "fsdp" else "DeepSpeed"
    if name == "DeepSpeed":
        if recipe.train.engine == "accelerate":
            raise InputError(
                "train.engine accelerate does not run under DeepSpeed: use train.engine=trainer, or "
                "accelerate_configs/fsdp.yaml, which shards as ZeRO-3 does under either engine."
            )
        if recipe.optim.clip_by_value is not None:
            raise InputError(
                "optim.clip_by_value does not run under DeepSpeed, which clips by norm: use optim.max_grad_norm."
            )
        if recipe.train.on_divergence == "rollback":
            raise InputError(
                "train.on_divergence rollback does not run under DeepSpeed, whose checkpoints keep the rate in a form "
                "of their own: use stop, or accelerate_configs/fsdp.yaml."
            )
    if recipe.freeze.gradual is not None:
        raise InputError(
            f"freeze.gradual: sharded parameters ({name}) can't thaw one by one; use DDP, or freeze.layers."
        )
    if recipe.lora is not None:
        raise InputError(
            f"lora does not run under {name}: use accelerate_configs/ddp.yaml; adapters need little memory."
        )
    if recipe.train.precision == "fp16":
        raise InputError(f"train.precision fp16 does not run under {name}: use bf16 or fp32.")
    if recipe.head is not None:
        raise InputError(f"head does not run under {name}: use accelerate_configs/ddp.yaml, or leave head null.")
    if recipe.average.name is not None:
        raise InputError(
            f"average.name {recipe.average.name} does not run under {name}: it needs whole weights on each process. "
            "Use accelerate_configs/ddp.yaml."
        )
    if recipe.optim.name not in ELEMENTWISE:
        raise InputError(
            f"optim.name {recipe.optim.name} does not run under {name}: it looks at whole matrices. "
            f"Use {', '.join(ELEMENTWISE)}."
        )


def _check_loss(section: LossSection, task: base.BaseTask, *, head_bias: str) -> None:
    fitting = task.losses()
    if section.name not in ("auto", *fitting):
        raise InputError(f"loss.name {section.name} does not fit these labels; use {' or '.join(fitting)}.")
    names = class_names(task)
    if head_bias == "prior" and (not names or loss_name(section, task) not in WEIGHTED):
        raise InputError(f"model.head_bias prior: {task.options.name} has no classes here; use auto.")
    if section.class_weights is None:
        return
    if not names or loss_name(section, task) not in WEIGHTED:
        raise InputError(f"loss.class_weights: the labels of {task.options.name} are not classes that can be weighed.")
    if section.class_weights != "balanced":
        class_weights.by_name(section.class_weights, names)


def _check_regularizers(recipe: Recipe, task: base.BaseTask, runtime: Runtime) -> None:
    chosen = recipe.regularize
    if chosen.r_drop and (not class_names(task) or loss_name(recipe.loss, task) not in WEIGHTED):
        raise InputError(f"regularize.r_drop: {task.options.name} has no classes here whose scores could be compared.")
    if task.images and (chosen.adversarial or chosen.neftune):
        which = "adversarial" if chosen.adversarial else "neftune"
        raise InputError(f"regularize.{which}: moves word embeddings, and images have none.")
    if chosen.mixes is not None and (task.mixes is None or (chosen.cutmix and task.mixes != "pixels")):
        what = "images" if chosen.cutmix and task.mixes else "rows with one label or list of labels each"
        key = "cutmix" if chosen.cutmix and task.mixes else chosen.mixes
        raise InputError(f"regularize.{key}: for {what}, and {task.options.name} has none here.")
    if chosen.l2_sp and recipe.lora is not None:
        raise InputError("regularize.l2_sp: with lora the pretrained weights stay as they are; leave it at 0.")
    sharded = runtime.strategy in SHARDED
    if chosen.supervised_contrastive:
        if not task.one_class_a_row or loss_name(recipe.loss, task) not in ("cross_entropy", "focal"):
            raise InputError(f"regularize.supervised_contrastive: {task.options.name} has no one class a row here.")
        if sharded:
            raise InputError(
                "regularize.supervised_contrastive: not under FSDP or DeepSpeed; use accelerate_configs/ddp.yaml."
            )
    if chosen.mixup and sharded and task.mixes == "embeddings":
        raise InputError("regularize.mixup: texts are not mixed under FSDP; use accelerate_configs/ddp.yaml.")
    if chosen.l2_sp and (sharded or recipe.train.precision == "fp16"):
        raise InputError("regularize.l2_sp: needs whole weights on each process, in fp32 or bf16.")
    if chosen.adversarial and sharded:
        raise InputError(
            "regularize.adversarial: needs whole weights on each process; use accelerate_configs/ddp.yaml."
        )


def _check_sampler(recipe: Recipe, task: base.BaseTask) -> None:
    if recipe.data.sampler != "balanced":
        return
    if not task.one_class_a_row:
        raise InputError(f"data.sampler balanced: {task.options.name} has no one class a row here; use shuffled.")
    if recipe.loss.class_weights == "balanced":
        raise InputError("data.sampler balanced: loss.class_weights=balanced corrects the same again; choose one.")


def balanced(recipe: Recipe, task: base.BaseTask, train: Dataset, say: Callable[[str], None]) -> BalancedClasses | None:
    """The order of training rows in which classes come up equally often, where the recipe asks for it."""
    if recipe.data.sampler != "balanced":
        return None
    found = BalancedClasses(list(train["labels"]), recipe.train.seed)
    names = class_names(task)
    times = ", ".join(f"{names[label]} {often:.2g} times" for label, often in found.times()[:_MOST_NAMED])
    more = f" and {len(found.members) - _MOST_NAMED} more" if len(found.members) > _MOST_NAMED else ""
    say(f"data.sampler balanced: an epoch sees each row of {times}{more}")
    return found


def regularized(chosen: Regularize, objective: Objective, loss: str) -> Objective:
    """The objective of training, with the passes that the recipe adds to it."""
    if chosen.supervised_contrastive:
        objective = supervised_contrastive(
            objective, weight=chosen.supervised_contrastive, temperature=chosen.temperature
        )
    if chosen.r_drop:
        divergence = binary_divergence if loss == "bce" else class_divergence
        return r_drop(objective, weight=chosen.r_drop, divergence=divergence)
    if chosen.adversarial:
        return adversarial(objective, size=chosen.adversarial)
    return objective


def own_head(section: Head | None) -> OwnHead | None:
    """The head that the recipe asks for in place of the family's."""
    return None if section is None else OwnHead(**section.model_dump())


def coupling(recipe: Recipe, task: base.BaseTask) -> tuple[str, int] | None:
    """Why the rows of a micro batch are coupled and how many it needs at least; None where they are not."""
    if task.couples_rows is not None:
        return task.couples_rows, task.fewest_rows
    if recipe.head is not None and recipe.head.norm == "batch":
        return "BatchNorm normalises over the rows of a micro batch", 2
    if recipe.regularize.supervised_contrastive:
        return "regularize.supervised_contrastive compares the rows of a micro batch", 2
    return None


def class_names(task: base.BaseTask) -> list[str]:
    """Names of the classes in the order of their numbers; none where labels are not classes."""
    return list(task.config_overrides().get("id2label", {}).values())


def loss_name(section: LossSection, task: base.BaseTask) -> str:
    """The loss that is meant, `auto` resolved."""
    return task.losses()[0] if section.name == "auto" else section.name


def head_bias(recipe: Recipe, task: base.BaseTask, train: Dataset) -> list[float] | None:
    """Where the outputs of a new head start, from the encoded training rows; None leaves that to the model."""
    asked, names = recipe.model.head_bias, class_names(task)
    several = loss_name(recipe.loss, task) == "bce"
    weighed = recipe.loss.class_weights is not None or recipe.data.sampler == "balanced"
    if asked == "zero" or (asked == "auto" and (weighed or not several)):
        return None
    return class_weights.prior(*class_weights.count_classes(train["labels"], len(names)), positives=several)


def loss(section: LossSection, task: base.BaseTask, train: Dataset, say: Callable[[str], None]) -> Loss:
    """The recipe's loss, with class weights from the encoded training rows where it asks for them."""
    name, weights = loss_name(section, task), None
    if section.class_weights is not None:
        names = class_names(task)
        if section.class_weights == "balanced":
            counts, total = class_weights.count_classes(train["labels"], len(names))
            weights = class_weights.balanced(counts, total, positives=name == "bce")
        else:
            weights = class_weights.by_name(section.class_weights, names)
        say(f"loss {name}, class weights: {class_weights.describe(weights, names)}")
    return build_loss(name, label_smoothing=section.label_smoothing, gamma=section.gamma, weights=weights)
