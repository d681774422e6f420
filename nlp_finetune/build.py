"""Recipe -> Job: the one page where parts meet.

prepare(recipe)  ->  Prepared   data read, columns found, split, tokenized; no weights yet (`preparation.py`)
build(prepared)  ->  Built      model loaded, and everything an engine needs around it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from nlp_finetune import augmenting, choices, faster, metering, prefix_cache, scoring
from nlp_finetune.arguments import training_arguments
from nlp_finetune.callbacks import make_callbacks, make_memory_guard, make_thawing
from nlp_finetune.data.batching import BatchPlan
from nlp_finetune.job import Job
from nlp_finetune.learning.averaging import WeightAverage, ema_share, swa_share
from nlp_finetune.learning.clipping import ClipByValue
from nlp_finetune.learning.flow import Flow
from nlp_finetune.learning.micro_batch import check_coupling, choose_micro_batches, freeze_unused
from nlp_finetune.learning.optimizers import make_optimizer
from nlp_finetune.learning.precision import choose_precision
from nlp_finetune.learning.regularizers import PullToStart, add_noise
from nlp_finetune.learning.schedules import make_scheduler
from nlp_finetune.models import adapters, freezing, heads, own_head, rates, renewing, sharding
from nlp_finetune.models.compact import DecayOfTheRest
from nlp_finetune.models.flops import Work
from nlp_finetune.models.loading import load_model, new_parameters
from nlp_finetune.preparation import Prepared
from nlp_finetune.recipe import Average, Optim, Recipe
from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.runs.timing import Stopwatch
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.stopping import StopRequest
from nlp_finetune.strategy import DEEPSPEED

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Built:
    """A job and what its results are made from."""

    job: Job
    objective: Any
    """Loss of the task alone, as evaluations have it: without what the job adds in training."""
    stopwatch: Stopwatch
    flow: Flow
    stateful: list[Any]
    precision: str
    packed: bool = False
    recomputes: bool = False
    average: WeightAverage | None = None
    cache: prefix_cache.PrefixCache | None = None
    work: Work | None = None


def build(
    prepared: Prepared, folder: RunFolder, runtime: Runtime, stop: StopRequest, *, about: Mapping[str, Any]
) -> Built:
    """Load the model and put together everything an engine needs, in order.

    `stop` is what asks training, and every evaluation of it, to end early; `about` says what run the
    checkpoints belong to.
    """
    recipe, task, processor = prepared.recipe, prepared.task, prepared.processor
    train, optim = recipe.train, recipe.optim
    model = _model(prepared, folder)
    compacted = faster.compact_vocabulary(recipe, task, model, processor, prepared.encoded["train"], runtime)
    if recipe.regularize.neftune:
        add_noise(model, alpha=recipe.regularize.neftune)
    collate = task.collator(processor)
    objective = task.objective(choices.loss(recipe.loss, task, prepared.encoded["train"], say))
    training = choices.regularized(recipe.regularize, objective, choices.loss_name(recipe.loss, task))
    rows = augmenting.drawn_rows(prepared)
    lengths = list(prepared.encoded["train"]["length"])
    run = partial(_run, model, objective, lambda: collate(faster.sample(rows, lengths)), runtime)
    faster.fast_dropout(train.fast_dropout, model, run, runtime)
    cut = faster.first_token_only(recipe, task, model, run, runtime)
    packed = train.gradient_checkpointing != "on" and faster.packed(
        recipe, task, model, lengths, run, runtime, but_last=cut
    )
    decided: list[str] = []
    precision = choose_precision(train.precision, runtime.device, decided.append)
    faster.channels_last(train.channels_last, task, model, precision, runtime)
    faster.check_budget(recipe, task, lengths)
    micro_batches, recomputes = choose_micro_batches(
        train.micro_batch_size if train.max_tokens is None else None,
        "off" if packed else train.gradient_checkpointing, model, lengths, batch_size=prepared.batch_size,
        runtime=runtime, precision=precision, collate=collate, rows=rows, objective=training,
        inputs=task.probe_inputs(processor), say=decided.append,
    )  # fmt: skip
    say("; ".join(decided))
    coupled = choices.coupling(recipe, task)
    if coupled is not None:
        pieces = micro_batches * runtime.processes
        check_coupling(coupled[0], needed=coupled[1], batch_size=prepared.batch_size, pieces=pieces, say=say)
    _share_out(model, runtime, lambda: collate([rows[0], rows[len(rows) - 1]]), objective)
    balanced = choices.balanced(recipe, task, prepared.encoded["train"], say)
    plan = BatchPlan(
        lengths, prepared.batch_size, prepared.steps, train.seed,
        processes=runtime.processes, micro_batches=micro_batches, bucket=train.bucket, balanced=balanced,
        max_tokens=train.max_tokens, padded=not packed,
    )  # fmt: skip
    average = _average(recipe.average, model, plan)
    is_whole = coupled is not None or train.compile == "on"
    memory = None if is_whole else make_memory_guard(plan, runtime)
    callbacks = make_callbacks(
        train, optim, plan, model=model, precision=precision, metric=prepared.metric, folder=folder, runtime=runtime,
        stop=stop, about=about, average=average,
        keep_best=recipe.average.keep if recipe.average.name == "soup" else 1, memory=memory,
    )  # fmt: skip
    cache = prefix_cache.make(
        prepared, model, rows, objective=objective, training=training, precision=precision, runtime=runtime,
        eval_batch_size=scoring.eval_batch_size(prepared), workers=scoring.loading_workers(prepared, runtime), say=say,
    )  # fmt: skip
    if cache is not None:
        rows, collate, training = cache.for_training(rows, collate, training)
    if recipe.regularize.mixes is not None:
        rows, collate, training = augmenting.mixed_rows(prepared, rows, collate, training, balanced)
    gradual = recipe.freeze.gradual
    work = metering.work_of_rows(prepared, model, rows, collate, training, precision=precision, runtime=runtime)
    thawing = None if gradual is None else make_thawing(model, gradual, plan)
    compiled = faster.compiled(recipe, task, model, plan, runtime, recomputes=recomputes, has_cache=cache is not None)
    job = Job(
        model=model,
        args=training_arguments(
            recipe,
            output_dir=folder.path,
            steps=plan.steps,
            micro_batch_size=-(-plan.batch_size // (micro_batches * runtime.processes)),
            micro_batches=micro_batches,
            precision=precision,
            workers=scoring.loading_workers(prepared, runtime) if cache is None else 0,
            on_cpu=runtime.device.type == "cpu",
            zero_stage={"zero2": 2, "zero3": 3}.get(runtime.strategy),
        ),
        train=rows,
        collate=collate,
        batches=plan,
        objective=callbacks.stopwatch.timed(training if memory is None else memory.guarded(training)),
        count_items=task.count_items,
        memory=memory,
        score=partial(
            scoring.score, prepared, objective=objective, runtime=runtime, stop=stop, flow=callbacks.flow,
            average=average, shortcut=None if cache is None else cache.shortcuts["validation"],
        ),
        make_optimizer=_optimizer(
            optim, model, starts=None if thawing is None else thawing.by_parameter(),
            one_pass=runtime.strategy not in DEEPSPEED,
        ),
        make_scheduler=partial(
            make_scheduler, name=optim.schedule, warmup=optim.warmup, power=optim.power, decay=optim.decay
        ),
        callbacks=[
            *([] if thawing is None else [thawing]), *compiled, *_on_weights(recipe, model, compacted),
            *callbacks.listed,
        ],
        on_gradients=callbacks.on_gradients,
        processor=processor,
    )  # fmt: skip
    return Built(
        job, objective, callbacks.stopwatch, callbacks.flow, callbacks.stateful, precision, packed, recomputes,
        average, cache, work,
    )  # fmt: skip


def _share_out(model: Any, runtime: Runtime, sample: Callable[[], Any], objective: Any) -> None:
    """Make a model fit for the strategy in force: shards, or no parameter that never learns and would be waited for."""
    if runtime.strategy == "fsdp":
        sharding.shard(model, device=runtime.device, processes=runtime.processes, reshard=runtime.reshard, say=say)
    elif runtime.strategy != "single":
        freeze_unused(model, sample(), objective, runtime.device, say)


def _on_weights(recipe: Recipe, model: Any, compacted: Any) -> list[Any]:
    """What changes gradients or weights around a step, besides the optimizer."""
    clip = recipe.optim.clip_by_value
    return [
        *([] if clip is None else [ClipByValue(clip)]),
        *_pull(recipe.regularize.l2_sp, model),
        *([] if compacted is None else [DecayOfTheRest(compacted)]),
    ]


def _optimizer(optim: Optim, model: Any, *, starts: Any, one_pass: bool) -> Callable[..., Any]:
    """What makes the recipe's optimizer; `starts` says from which step on a parameter that thaws is trained.

    `one_pass` lets torch step in one pass; DeepSpeed puts tensors of its own in the place of those that are stepped.
    """
    return partial(
        make_optimizer,
        name=optim.name,
        learning_rate=optim.learning_rate,
        weight_decay=optim.weight_decay,
        momentum=optim.momentum,
        nesterov=optim.nesterov,
        betas=(optim.beta1, optim.beta2),
        eps=optim.epsilon,
        starts=starts,
        one_pass=one_pass,
        factors=rate_factors(model, optim),
    )


def rate_factors(model: Any, optim: Optim) -> dict[int, float]:
    """Factor of the learning rate of each parameter that trains, by its `id`."""
    return rates.factors(
        model, layer_decay=optim.layer_decay, head_multiplier=optim.head_multiplier, patterns=optim.rates
    )


def _model(prepared: Prepared, folder: RunFolder) -> PreTrainedModel:
    """The checkpoint with its head and, where the recipe asks for one, an adapter."""
    recipe, task = prepared.recipe, prepared.task
    given: dict[str, Any] = {
        "config": prepared.config,
        "tokenizer": None if task.images else prepared.processor,
        "head_init": recipe.model.head_init,
        "dropout": recipe.model.dropout,
        "activation": recipe.model.activation,
        "seed": recipe.train.seed,
        "say": say,
    }
    scratch = prepared.checkpoint.kind == "scratch"
    head = choices.own_head(recipe.head)
    if head is not None:
        model = own_head.load(prepared.checkpoint, head, **given)
    else:
        model = load_model(prepared.checkpoint, auto_class=task.auto_class, **given)
    task.complete_model(model, say)
    bias = choices.head_bias(recipe, task, prepared.encoded["train"])
    new = {name for name, _ in model.named_parameters()} if scratch else new_parameters(model)
    if bias is not None and heads.start_at(model, bias, new=new):
        say("new head: its outputs start at how often each class occurs in the training rows")
    choose_what_trains(model, recipe)
    if recipe.lora is not None:
        base = adapters.find_base(prepared.checkpoint, model, keep=folder.base)
        adapter = recipe.lora.model_dump()
        model = adapters.add(model, **adapter, auto_class=task.auto_class, seed=recipe.train.seed, base=base, say=say)
    return model


def choose_what_trains(model: Any, recipe: Recipe, *, tell: Callable[[str], None] = say) -> None:
    """Draw anew and freeze what the recipe says, in a model with or without memory."""
    renewed, section = recipe.optim.reinit_top_layers, recipe.freeze
    if renewed is not None:
        renewing.draw_top_layers(model, renewed, seed=recipe.train.seed, say=tell)
    freezing.freeze(model, section.layers, section.patterns, section.all_but_head, say=tell)
    if renewed is not None:
        renewing.check_trained(model, renewed)


def _pull(strength: float, model: PreTrainedModel) -> list[PullToStart]:
    return [PullToStart(model, strength=strength)] if strength else []


def _average(section: Average, model: PreTrainedModel, plan: BatchPlan) -> WeightAverage | None:
    if section.name in (None, "soup"):
        return None
    if section.name == "ema":
        say(f"average: what is validated and saved is a moving average of the weights, decay {section.decay:g}")
        return WeightAverage(model, share=ema_share(section.decay))
    first = math.floor(section.start * plan.steps) + 1
    say(f"average: what is validated and saved is the mean of the weights from step {first} of {plan.steps} on (SWA)")
    return WeightAverage(model, share=swa_share(plan, start=section.start, every=section.every))


def _run(model: Any, objective: Any, batch: Callable[[], Mapping[str, Any]], runtime: Runtime) -> Any:
    """One pass of the model over a batch."""
    import torch

    model.to(runtime.device)
    moved = {name: value.to(runtime.device) if torch.is_tensor(value) else value for name, value in batch().items()}
    return objective(model, moved, torch.ones((), device=runtime.device))
