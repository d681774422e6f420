"""What makes training faster or smaller and leaves its result alone: whether the recipe's model can have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlp_finetune import choices
from nlp_finetune.data.lengths import tokens_used
from nlp_finetune.errors import InputError
from nlp_finetune.learning.optimizers import DECOUPLED_DECAY, ELEMENTWISE
from nlp_finetune.models import compact, dropout, first_token, layout, packing, row_attention
from nlp_finetune.models import compiled as compiling
from nlp_finetune.recipe import Recipe
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.tasks import base

if TYPE_CHECKING:
    from datasets import Dataset

    from nlp_finetune.data.batching import BatchPlan

_WORTH_COMPACTING = 0.9
"""Share of a table's rows that training uses, up to which `auto` trains them alone."""
_WHOLE_WEIGHTS = ("single", "ddp")
"""Strategies with which each process holds all weights and all states of the optimizer."""
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
"""What families call the probability in their configuration."""


def compact_vocabulary(
    recipe: Recipe, task: base.BaseTask, model: Any, processor: Any, train: Dataset, runtime: Runtime
) -> compact.CompactEmbedding | None:
    """Train only the rows of the embedding table that training uses, where that is asked for or exact.

    The model is changed in place. Raises `InputError` where it is asked for and would not be exact.
    """
    asked = recipe.train.compact_vocabulary
    if task.images and asked == "on":
        raise InputError("train.compact_vocabulary on: images have no vocabulary. Leave it at auto.")
    if asked == "off" or task.images:
        return None
    reason = _inexact(recipe, task, processor, runtime) or compact.obstacle(model)
    if reason is not None:
        if asked == "on":
            raise InputError(f"train.compact_vocabulary on: {reason}. Leave it at auto.")
        say(f"compact vocabulary off: {reason}")
        return None
    table = model.get_input_embeddings()
    padding = [token for token in (table.padding_idx, processor.pad_token_id) if token is not None]
    used, size = tokens_used(train, besides=padding), table.num_embeddings
    if asked == "auto" and len(used) > _WORTH_COMPACTING * size:
        say(
            f"compact vocabulary off: training uses {len(used):,} of {size:,} rows of the table, too many to gain by it"
        )
        return None
    say(f"compact vocabulary: training uses {len(used):,} of {size:,} rows of the embedding table and trains those")
    return compact.compact(model, used)


def _inexact(recipe: Recipe, task: base.BaseTask, processor: Any, runtime: Runtime) -> str | None:
    """Why training some rows alone would not be the same as training all; None if it would."""
    optim = recipe.optim
    if optim.name not in (*ELEMENTWISE, "lion"):
        return f"optim.name {optim.name} looks at the table as a whole"
    if optim.weight_decay and optim.name not in DECOUPLED_DECAY:
        return f"optim.weight_decay of {optim.name} moves rows that are never read; it is exact at 0"
    if optim.weight_decay and recipe.train.precision == "fp16":
        return "optim.weight_decay moves rows that are never read, but not in steps that fp16 skips; it is exact at 0"
    if optim.weight_decay and recipe.average.name is not None:
        return "optim.weight_decay moves rows that are never read, and an average takes them in; it is exact at 0"
    if recipe.freeze.gradual is not None:
        return "freeze.gradual thaws the table as a whole"
    if runtime.strategy not in _WHOLE_WEIGHTS:
        return f"{runtime.strategy} shares out the table as a whole"
    if recipe.augment.text or task.transform(processor) is not None:
        return "rows are changed at random in training, and may come to hold any token"
    return None


def fast_dropout(asked: str, model: Any, run: Callable[[], Any], runtime: Runtime) -> None:
    """Drop by cheap random bits, in every layer and in attention, on a CPU; `run` runs the model on a few rows.

    The model is changed in place. Raises `InputError` where it is asked for on another device.
    """
    on_cpu = runtime.device.type == "cpu"
    if asked == "on" and not on_cpu:
        raise InputError(f"train.fast_dropout on: it is for CPUs, and this run is on {runtime.device.type}.")
    if asked == "off" or not on_cpu or runtime.strategy not in _WHOLE_WEIGHTS:
        return
    base = packing.base_of(model)
    replaced = dropout.put_fast_dropout(model)
    config = getattr(base, "config", None)
    in_attention = any(getattr(config, name, 0.0) for name in _ATTENTION_DROPOUT)
    if in_attention and getattr(base, "_supports_attention_backend", False):
        reason = _other_attention(base, run)
        if reason is not None:
            say(f"fast dropout: not in attention, which {base.config.model_type} does in a way of its own ({reason})")
    if replaced:
        say(f"fast dropout: {replaced} layers drop by 16 random bits an element; the probability is kept to 1/65536")


def _other_attention(base: Any, run: Callable[[], Any]) -> str | None:
    """Give a backbone attention with fast dropout; take it back, and say why, where it is not the same attention."""
    before = base.config._attn_implementation
    expected = packing.last_states(base, run)
    row_attention.use(base, fast_dropout=True)
    try:
        reason = packing.difference(expected, packing.last_states(base, run))
    except packing.FAULTS as error:
        reason = str(error).partition("\n")[0]
    if reason is not None:
        base.set_attn_implementation(before)
    return reason


def first_token_only(recipe: Recipe, task: base.BaseTask, model: Any, run: Callable[[], Any], runtime: Runtime) -> bool:
    """Train with a last block for first tokens alone, where that is asked for or the same; gives whether.

    `run` runs the model on a few rows and gives loss and outputs. The model is changed in place.
    Raises `InputError` where it is asked for and would not be the same.
    """
    asked = recipe.train.first_token_only
    if task.images and asked == "on":
        raise InputError("train.first_token_only on: images have no tokens. Leave it at auto.")
    if asked == "off" or task.images or (asked == "auto" and runtime.device.type != "cpu"):
        return False
    reason: str | None = f"{runtime.strategy} gathers weights by block"
    if runtime.strategy in _WHOLE_WEIGHTS:
        reason = _hooked(lambda: first_token.FirstTokenOnly(model, run), first_token.fault, run)
    if reason is not None:
        if asked == "on":
            raise InputError(f"train.first_token_only on: {reason}. Leave it at auto.")
        say(f"last block for all tokens: {reason}")
        return False
    say("last block for the first token of each row alone: the head reads no other")
    return True


def _hooked(make: Callable[[], Any], fault: Callable[[Any, Callable[[], Any]], str | None], run: Any) -> str | None:
    """Put the hooks that `make` makes into a model; take them out, and say why, where `fault` finds it not the same."""
    try:
        made = make()
    except packing.NotPackableError as error:
        return str(error)
    reason = fault(made, run)
    if reason is not None:
        made.remove()
    return reason


def packed(
    recipe: Recipe,
    task: base.BaseTask,
    model: Any,
    lengths: Sequence[int],
    run: Callable[[], Any],
    runtime: Runtime,
    *,
    but_last: bool = False,
) -> bool:
    """Train without padding, where that is asked for or pays; gives whether. `run` runs the model on a few rows.

    With `but_last` the last block, which is computed for first tokens alone, sees padding.

    The model is changed in place. Raises `InputError` where it is asked for and the model can't.
    """
    asked = recipe.train.packing
    if task.images and asked == "on":
        raise InputError("train.packing on: images have no padding. Leave it at auto.")
    if asked == "off" or task.images:
        return False
    reason = None if asked == "on" else _not_worth_packing(recipe, runtime)
    if reason is None:
        reason = f"{runtime.strategy} gathers weights by block"
        if len(set(lengths)) == 1:
            reason = "all rows are equally long, so there is no padding"
        elif runtime.strategy in _WHOLE_WEIGHTS:
            reason = _hooked(lambda: packing.Packing(model, but_last=but_last), packing.fault, run)
        if reason is not None and asked == "on":
            kind = packing.base_of(model).config.model_type
            raise InputError(f"train.packing on: {kind} can't train without padding here: {reason}. Leave it at auto.")
    if reason is not None:
        say(f"packing off: {reason}")
        return False
    say("packing: rows are laid end to end, without padding, from the first block to the last; each attends to itself")
    return True


def _not_worth_packing(recipe: Recipe, runtime: Runtime) -> str | None:
    """Why `auto` pads: packing is on where it was measured to pay (docs/performance.md)."""
    if runtime.device.type != "cpu":
        return f"on {runtime.device.type} it pays for some models and not for others; train.packing=on tries it"
    return "train.bucket leaves little padding" if recipe.train.bucket else None


def channels_last(asked: str, task: base.BaseTask, model: Any, precision: str, runtime: Runtime) -> None:
    """Lay out the convolutions of an image model with the channels of a pixel side by side, where asked or faster.

    The model is changed in place. Raises `InputError` where it is asked for and can't be had.
    """
    fits = task.images and layout.has_convolutions(model)
    whole = runtime.strategy in _WHOLE_WEIGHTS
    if asked == "on" and not (fits and whole):
        why = "this model has no convolutions" if not fits else f"{runtime.strategy} keeps shards of another layout"
        raise InputError(f"train.channels_last on: {why}. Leave it at auto.")
    if not fits:
        return
    chosen = asked == "on" or (asked == "auto" and whole and layout.pays(runtime.device, precision))
    layout.arrange(model, channels_last=chosen)
    if chosen:
        say("channels last: convolutions find the channels of a pixel side by side, which is faster; saved as always")


def compiled(
    recipe: Recipe,
    task: base.BaseTask,
    model: Any,
    plan: BatchPlan,
    runtime: Runtime,
    *,
    recomputes: bool,
    has_cache: bool,
) -> list[compiling.OwnGradients]:
    """Let torch compile the backbone where that is asked for; gives callbacks that training needs then.

    The model is changed in place. Raises `InputError` where it can't be.
    """
    if recipe.train.compile == "off":
        return []
    regularize = recipe.regularize
    reasons = {
        f"{runtime.strategy} gathers weights by block": runtime.strategy not in _WHOLE_WEIGHTS,
        "regularize.r_drop and adversarial run the model twice a step": bool(
            regularize.r_drop or regularize.adversarial
        ),
        "the task runs the model several times a step": not task.runs_once,
        "freeze.gradual changes what trains": recipe.freeze.gradual is not None,
        "blocks are computed again to save memory (train.gradient_checkpointing)": recomputes,
        "frozen layers are computed once (freeze.cache)": has_cache,
        "there is no C++ compiler (g++) on this machine": compiling.compiler() is None,
    }
    reason = next((why for why, holds in reasons.items() if holds), None)
    try:
        if reason is None:
            compiling.Compiled(model, longest=max(plan.lengths), say=say)
    except packing.NotPackableError as error:
        reason = str(error)
    if reason is not None:
        raise InputError(f"train.compile on: {reason}. Leave train.compile off.")
    on_gpu = runtime.device.type == "cuda"
    even = plan.batch_size % (plan.micro_batches * plan.processes) == 0
    say(
        "compile: each shape of a micro batch when it first comes"
        + (", replayed as one graph" if on_gpu else "")
        + ("" if even else "; micro batches with a row less run as they are")
    )
    return [compiling.OwnGradients()] if on_gpu else []


def check_budget(recipe: Recipe, task: base.BaseTask, lengths: Sequence[int]) -> None:
    """Raise `InputError` for a `train.max_tokens` that rows don't fit into, or that changes what is learned."""
    most = recipe.train.max_tokens
    if most is None:
        return
    coupled = choices.coupling(recipe, task)
    if coupled is not None:
        raise InputError(f"train.max_tokens: {coupled[0]}, and each step would have others. Use micro_batch_size.")
    if task.images:
        raise InputError("train.max_tokens: images have no tokens. Use train.micro_batch_size.")
    if recipe.regularize.mixup:
        raise InputError(
            "train.max_tokens: with regularize.mixup a row is as long as the longer of two. Use train.micro_batch_size."
        )
    if most < max(lengths):
        raise InputError(
            f"train.max_tokens {most}: the longest training row has {max(lengths)} tokens. Raise it, or lower "
            f"{' or '.join(f'task.{name}' for name in task.length_options[:1]) or 'the length of rows'}."
        )


def sample(rows: Any, lengths: Sequence[int]) -> list[Mapping[str, Any]]:
    """The shortest training row, one of middle length, and the longest."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    return [rows[row] for row in (order[0], order[len(order) // 2], order[-1])]
