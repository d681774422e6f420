"""The callbacks of a run, in the order in which they act on an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from nlp_finetune import allocator, joining
from nlp_finetune.data.batching import BatchPlan
from nlp_finetune.learning.averaging import WeightAverage
from nlp_finetune.learning.divergence import FiniteWatch, Rollbacks
from nlp_finetune.learning.excess_memory import ExcessMemory
from nlp_finetune.learning.flow import Flow, RankSeed, Requests
from nlp_finetune.learning.health import Doctor, Health
from nlp_finetune.learning.out_of_memory import MemoryGuard
from nlp_finetune.learning.patience import EarlyStopping, ReduceOnPlateau
from nlp_finetune.learning.thawing import Thawing, thaw_steps
from nlp_finetune.models import freezing, groups
from nlp_finetune.recipe import Optim, Train
from nlp_finetune.recipe.durations import is_duration, seconds
from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.runs.recording import History, Progress
from nlp_finetune.runs.saving import BestWeights, Checkpoints
from nlp_finetune.runs.timing import Stopwatch
from nlp_finetune.runs.tracking import tracker_callbacks
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.stopping import StopRequest
from nlp_finetune.strategy import DEEPSPEED, SHARDED

_LOWER_IS_BETTER = {"loss", "rmse", "mae", "perplexity", "pseudo_perplexity"}


def lower_is_better(metric: str) -> bool:
    """Whether smaller values of a metric are better."""
    return metric in _LOWER_IS_BETTER


def make_thawing(model: Any, every: int | str, plan: BatchPlan) -> Thawing:
    """The callback that thaws what trains in a model, group by group, until all of it does."""
    named = freezing.thaw_groups(model)
    starts = thaw_steps(len(named), every=every, rows=plan.rows, batch_size=plan.batch_size)
    still: list[Any] = []

    def settle() -> None:
        still[:] = freezing.still_modules(model)

    freezing.keep_in_evaluation_mode(model, still)
    never = [name for (name, _), start in zip(named, starts, strict=True) if start >= plan.steps]
    if never:
        say(f"freeze.gradual: the run ends at step {plan.steps}, before these thaw: {'; '.join(never)}")
    return Thawing([own for _, own in named], [name for name, _ in named], starts, settle=settle, say=say)


@dataclass(frozen=True)
class Callbacks:
    """What listens to a run: `listed` is all of it in order, `stateful` what belongs into a checkpoint."""

    flow: Flow
    stopwatch: Stopwatch
    watch: FiniteWatch
    health: Health
    stateful: list[Any]
    listed: list[Any]

    def on_gradients(self, norm: Any) -> None:
        """What the engines call between clipping and the optimizer."""
        self.watch.on_gradients(norm)
        self.health.on_gradients(norm)


def make_health(model: Any, flow: Flow, runtime: Runtime) -> Health:
    """What measures gradients, updates and the head of a model in the steps that are logged."""
    # DeepSpeed has stepped and let go of the gradients before anything could look at them.
    measured = {} if runtime.strategy in DEEPSPEED else groups.trained_groups(model)
    return Health(
        measured,
        groups.head_of(model),
        due=flow.logs,
        gather=runtime.gather if runtime.strategy == "fsdp" else None,
    )


def make_memory_guard(plan: BatchPlan, runtime: Runtime) -> MemoryGuard | None:
    """What runs micro batches in parts where memory runs out; None of shards, and where a budget of tokens cuts."""
    if runtime.strategy in SHARDED or plan.max_tokens is not None:
        return None
    return MemoryGuard(
        fewest_rows=plan.batch_size // (plan.processes * plan.micro_batches),
        agree=None if runtime.processes == 1 else lambda flag: runtime.any(flag)[0],
        say=say,
    )


def make_callbacks(
    train: Train,
    optim: Optim,
    plan: BatchPlan,
    *,
    model: Any,
    precision: str,
    metric: str,
    folder: RunFolder,
    runtime: Runtime,
    stop: StopRequest,
    about: Mapping[str, Any],
    average: WeightAverage | None = None,
    keep_best: int = 1,
    memory: MemoryGuard | None = None,
) -> Callbacks:
    """The callbacks of a run.

    Flow comes first and sets what is due; checkpoints come last and save what the others have become.
    `about` says what run the checkpoints belong to; `average` is what is kept as best in place of the weights,
    `keep_best` how many of the best weights are.
    """
    by_clock = seconds(str(train.save_every)) if is_duration(train.save_every) else None
    save_every = train.save_every if by_clock is None else "end"
    flow = Flow(plan, log_every=train.log_every, eval_every=train.eval_every, save_every=save_every)
    stopwatch = Stopwatch(cuda=runtime.device.type == "cuda")
    requests = Requests(
        agree=lambda due: cast(tuple[bool, bool], runtime.any(stop.reason is not None, due)),
        flow=flow,
        save_every_s=by_clock,
    )
    best = BestWeights(
        folder.checkpoints,
        metric=metric,
        greater_is_better=not lower_is_better(metric),
        runtime=runtime,
        average=average,
        keep=keep_best,
    )
    averages = [] if average is None else [average]
    stateful: list[Any] = [
        stopwatch,
        Rollbacks(),
        *([] if memory is None else [memory]),
        *averages,
        *([best] if keep_best > 1 else []),
    ]
    seed = RankSeed(train.seed, rank=runtime.rank)
    watch = FiniteWatch(agree=lambda flag: runtime.any(flag)[0], scaled=precision == "fp16")
    health = make_health(model, flow, runtime)
    callbacks: list[Any] = [flow, seed, stopwatch, requests, watch, health]
    callbacks += [*averages, best]
    # Micro batches of a budget need about as much each; of others a large one would be taken for excess.
    if plan.max_tokens is not None and runtime.device.type == "cpu" and joining.keeps_freed_memory():
        callbacks.append(ExcessMemory(resident=allocator.resident, give_back=allocator.give_back))
    if optim.schedule == "plateau":
        plateau = ReduceOnPlateau(patience=optim.plateau_patience, factor=optim.plateau_factor, say=say)
        stateful.append(plateau)
        callbacks.append(plateau)
    if train.patience is not None:
        early = EarlyStopping(patience=train.patience, min_delta=train.min_delta, say=say)
        stateful.append(early)
        callbacks.append(early)
    if runtime.is_main:
        callbacks += [History(folder.history, health=lambda: health.line), Doctor(health, say=say)]
        callbacks.append(Progress(say, metric=metric))
        callbacks += tracker_callbacks(train.report_to, folder.path)
    callbacks.append(
        Checkpoints(
            folder.checkpoints,
            clock=flow,
            stateful=stateful,
            keep=train.save_total,
            runtime=runtime,
            watch=stopwatch,
            at_start=train.on_divergence == "rollback",
            about=about,
            average=average,
        )
    )
    return Callbacks(flow, stopwatch, watch, health, stateful, callbacks)
