"""Recipe -> Job: the one page where parts meet.

prepare(recipe)  ->  Prepared   data read, columns found, split, tokenized; no weights yet
build(prepared)  ->  Built      model loaded, and everything an engine needs around it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune import choices, inference
from nlp_finetune.arguments import check_extra, training_arguments
from nlp_finetune.callbacks import make_callbacks, make_thawing
from nlp_finetune.data import groups, sources, splits
from nlp_finetune.data.batching import BatchPlan, planned_steps
from nlp_finetune.data.drawing import DrawnRows
from nlp_finetune.errors import InputError
from nlp_finetune.job import Job
from nlp_finetune.learning.flow import Flow
from nlp_finetune.learning.micro_batch import check_coupling, choose_micro_batches, freeze_unused
from nlp_finetune.learning.optimizers import make_optimizer
from nlp_finetune.learning.precision import choose_precision
from nlp_finetune.learning.regularizers import PullToStart, add_noise
from nlp_finetune.learning.schedules import make_scheduler
from nlp_finetune.models import adapters, freezing, sharding
from nlp_finetune.models import checkpoint as checkpoints
from nlp_finetune.models.loading import check_family, load_config, load_model
from nlp_finetune.recipe import Recipe
from nlp_finetune.runs import card
from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.runs.timing import Stopwatch
from nlp_finetune.runs.tracking import check_installed
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.stopping import Interrupted, StopRequest
from nlp_finetune.tasks import base

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig, PreTrainedModel

_PREPROCESSING = 2
"""Version of tokenization; part of the cache's name, so raise it when `encode` of any task changes."""
_EVAL_ROWS, _EVAL_TOKENS = 64, 16_384
"""Most rows and tokens of an evaluation batch whose size is left to us."""


@dataclass(frozen=True)
class Prepared:
    """Data and processor of a run: all that can be known before weights are loaded."""

    recipe: Recipe
    task: base.BaseTask
    checkpoint: checkpoints.Checkpoint
    config: PretrainedConfig
    processor: Any
    loaded: sources.Loaded
    rows: dict[str, Dataset]
    encoded: dict[str, Dataset]
    digests: dict[str, str]
    """One a split, of its encoded rows: of data, processor and preprocessing."""

    @property
    def metric(self) -> str:
        """Metric that picks the best checkpoint."""
        return self.task.metric if self.recipe.train.metric == "auto" else self.recipe.train.metric

    @property
    def batch_size(self) -> int:
        """Rows of one optimizer step: the recipe's, or all rows where there are fewer."""
        return min(self.recipe.train.batch_size, len(self.encoded["train"]))

    @property
    def steps(self) -> int:
        """Planned optimizer steps."""
        train = self.recipe.train
        rows = len(self.encoded["train"])
        return planned_steps(rows=rows, batch_size=self.batch_size, epochs=train.epochs, max_steps=train.max_steps)


def prepare(recipe: Recipe, runtime: Runtime, *, tell: Callable[[str], None] = say) -> Prepared:
    """Read and check everything that needs no weights; raises `InputError` for what is wrong."""
    check_extra(recipe)
    check_installed(recipe.train.report_to)
    card.skeleton(recipe.hub.card)
    model = recipe.model
    checkpoint = checkpoints.resolve(
        model.checkpoint, revision=model.revision, trust_remote_code=model.trust_remote_code
    )
    task = base.find(recipe.task.name)(recipe.task)
    # A family that can't do the task is refused before any data are fetched.
    plain = load_config(checkpoint, overrides={}, edits=recipe.model.config)
    check_family(plain, auto_class=task.auto_class)
    task.check_config(plain)
    with runtime.main_first():
        loaded = _load_data(recipe, task)
    for note in loaded.notes:
        tell(note)
    rows = _split(recipe, task.prepare(loaded.splits, tell), task, tell)
    choices.check(recipe, task, runtime)
    config = load_config(checkpoint, overrides=task.config_overrides(), edits=recipe.model.config)
    task.check_format(recipe.model.save_format, config)
    processor = task.processor(
        checkpoint, tokenizer=recipe.model.tokenizer, rows=rows["train"], config=config, say=tell
    )
    digests = {name: _digest(loaded, name, data, task, processor) for name, data in rows.items()}
    with runtime.main_first():
        encoded = {
            name: inference.encode(task, data, processor, cache_file=_cache_file(digests[name]))
            for name, data in rows.items()
        }
    for name, data in encoded.items():
        if not len(data):
            raise InputError(
                f"{name}: the tokenizer leaves nothing to learn from in any of the {len(rows[name])} rows."
            )
    if recipe.train.batch_size > len(encoded["train"]):
        tell(f"train.batch_size {recipe.train.batch_size} exceeds the data: {len(encoded['train'])} rows a step")
    return Prepared(recipe, task, checkpoint, config, processor, loaded, rows, encoded, digests)


def _load_data(recipe: Recipe, task: base.BaseTask) -> sources.Loaded:
    data = recipe.data
    return sources.load(
        source=data.source,
        train=data.train,
        validation=data.validation,
        test=data.test,
        revision=data.revision,
        config=data.config,
        columns=data.columns,
        delimiter=data.delimiter,
        quoting=data.quoting,
        encoding=data.encoding,
        text_rows=task.text_rows,
        images=task.images,
    )


def _split(
    recipe: Recipe, rows: dict[str, Dataset], task: base.BaseTask, tell: Callable[[str], None]
) -> dict[str, Dataset]:
    """Hold out a validation set where the data have none; take `data.limit` training rows."""
    data = recipe.data
    seed = recipe.train.seed if data.seed is None else data.seed
    if "validation" not in rows:
        if len(rows["train"]) < 2:
            raise InputError("one row of data is too few to train on and to validate with.")
        fraction = data.validation_fraction
        grouped = groups.hold_out(rows["train"], fraction=fraction, seed=seed, group=task.row_group)
        train, held_out = grouped or splits.hold_out(
            rows["train"], fraction=fraction, seed=seed, stratum=task.row_label
        )
        rows = {**rows, "train": train, "validation": held_out}
        how = "whole groups that share a text" if grouped else "stratified"
        tell(f"no validation split: {len(held_out)} of {len(train) + len(held_out)} training rows held out, {how}")
    if data.limit is not None and data.limit < len(rows["train"]):
        limited = splits.limit(rows["train"], count=data.limit, seed=seed, stratum=task.row_label)
        tell(f"data.limit: {len(limited)} of {len(rows['train'])} training rows")
        rows = {**rows, "train": limited}
    if "test" not in rows:
        tell("no test split: the scores below are of the validation rows, which also chose the best checkpoint")
    return rows


def _digest(loaded: sources.Loaded, split: str, rows: Dataset, task: base.BaseTask, processor: Any) -> str:
    """Names an encoded split by data, processor and preprocessing version."""
    key = [
        _PREPROCESSING, loaded.fingerprint, split, task.options.model_dump(), task.facts(), list(rows["row"]),
        *task.processor_key(processor),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _cache_file(digest: str) -> Path:
    """Where the encoded split with this digest is cached."""
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / "nlp_finetune" / f"{digest}.arrow"


@dataclass(frozen=True)
class Built:
    """A job and what its results are made from."""

    job: Job
    stopwatch: Stopwatch
    flow: Flow
    stateful: list[Any]
    precision: str


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
    collate = task.collator(processor)
    objective = task.objective(choices.loss(recipe.loss, task, prepared.encoded["train"], say))
    training = choices.regularized(recipe.regularize, objective, choices.loss_name(recipe.loss, task))
    rows = DrawnRows(prepared.encoded["train"], transform=task.transform(processor, training=True), seed=train.seed)
    lengths = list(prepared.encoded["train"]["length"])
    precision = choose_precision(train.precision, runtime.device, say)
    micro_batches = choose_micro_batches(
        train.micro_batch_size, model, lengths, batch_size=prepared.batch_size, runtime=runtime, precision=precision,
        collate=collate, rows=rows, objective=training, inputs=task.probe_inputs(processor), say=say,
    )  # fmt: skip
    if task.couples_rows is not None:
        pieces = micro_batches * runtime.processes
        check_coupling(
            task.couples_rows, needed=task.fewest_rows, batch_size=prepared.batch_size, pieces=pieces, say=say
        )
    if runtime.strategy == "fsdp":
        sharding.shard(model, device=runtime.device, processes=runtime.processes, reshard=runtime.reshard, say=say)
    elif runtime.processes > 1:
        freeze_unused(model, collate([rows[0], rows[len(rows) - 1]]), objective, runtime.device, say)
    plan = BatchPlan(
        lengths, prepared.batch_size, prepared.steps, train.seed,
        processes=runtime.processes, micro_batches=micro_batches, bucket=train.bucket,
    )  # fmt: skip
    flow, stopwatch, stateful, callbacks = make_callbacks(
        train, optim, plan, metric=prepared.metric, folder=folder, runtime=runtime, stop=stop, about=about
    )
    gradual = recipe.freeze.gradual
    thawing = None if gradual is None else make_thawing(model, gradual, plan)
    job = Job(
        model=model,
        args=training_arguments(
            recipe,
            output_dir=folder.path,
            steps=plan.steps,
            micro_batch_size=-(-plan.batch_size // (micro_batches * runtime.processes)),
            micro_batches=micro_batches,
            precision=precision,
            workers=loading_workers(prepared, runtime),
        ),
        train=rows,
        collate=collate,
        batches=plan,
        objective=stopwatch.timed(training),
        count_items=task.count_items,
        score=partial(_score, prepared, objective=objective, runtime=runtime, stop=stop, flow=flow),
        make_optimizer=partial(
            make_optimizer, name=optim.name, learning_rate=optim.learning_rate, weight_decay=optim.weight_decay,
            momentum=optim.momentum, nesterov=optim.nesterov, betas=(optim.beta1, optim.beta2), eps=optim.epsilon,
            starts=None if thawing is None else thawing.by_parameter(),
        ),
        make_scheduler=partial(
            make_scheduler, name=optim.schedule, warmup=optim.warmup, power=optim.power, decay=optim.decay
        ),
        callbacks=[*([] if thawing is None else [thawing]), *_pull(recipe.regularize.l2_sp, model), *callbacks],
        processor=processor,
    )  # fmt: skip
    return Built(job, stopwatch, flow, stateful, precision)


def _model(prepared: Prepared, folder: RunFolder) -> PreTrainedModel:
    """The checkpoint with its head and, where the recipe asks for one, an adapter."""
    recipe, task = prepared.recipe, prepared.task
    model = load_model(
        prepared.checkpoint,
        auto_class=task.auto_class,
        config=prepared.config,
        tokenizer=None if task.images else prepared.processor,
        head_init=recipe.model.head_init,
        dropout=recipe.model.dropout,
        activation=recipe.model.activation,
        seed=recipe.train.seed,
        say=say,
    )
    task.complete_model(model, say)
    if recipe.regularize.neftune:
        add_noise(model, alpha=recipe.regularize.neftune)
    freezing.freeze(model, recipe.freeze.layers, recipe.freeze.patterns, recipe.freeze.all_but_head, say=say)
    if recipe.lora is not None:
        base = adapters.find_base(prepared.checkpoint, model, keep=folder.base)
        adapter = recipe.lora.model_dump()
        model = adapters.add(model, **adapter, auto_class=task.auto_class, seed=recipe.train.seed, base=base, say=say)
    return model


def _pull(strength: float, model: PreTrainedModel) -> list[PullToStart]:
    return [PullToStart(model, strength=strength)] if strength else []


def eval_batch_size(prepared: Prepared) -> int:
    """Rows of one evaluation batch; `auto` takes fewer where rows are long."""
    asked = prepared.recipe.train.eval_batch_size
    if asked != "auto":
        return asked
    longest = max(max(data["length"]) for data in prepared.encoded.values())
    return max(1, min(_EVAL_ROWS, _EVAL_TOKENS // int(longest)))


def loading_workers(prepared: Prepared, runtime: Runtime) -> int:
    """Processes that load data; `auto` takes this process's share of the cores for images, which are decoded."""
    asked = prepared.recipe.train.workers
    if asked != "auto":
        return asked
    return min(inference.MOST_WORKERS, runtime.cores) if prepared.task.images else 0


def scorer(prepared: Prepared, model: Any, runtime: Runtime, stop: StopRequest) -> inference.Model:
    """The model as `inference` runs it on the rows of this run, until the run is asked to stop."""
    return inference.Model(
        prepared.task,
        model,
        prepared.processor,
        runtime,
        eval_batch_size(prepared),
        loading_workers(prepared, runtime),
        stop=lambda: runtime.any(stop.reason is not None)[0],
    )


def _score(
    prepared: Prepared, model: Any, *, objective: Any, runtime: Runtime, stop: StopRequest, flow: Flow
) -> dict[str, float] | None:
    """Metrics of the model on the validation rows; None, and `flow.interrupted`, where the run is to stop."""
    task, rows = prepared.task, prepared.rows["validation"]
    runtime.share_statistics(model)
    loaded = scorer(prepared, model, runtime, stop)
    try:
        output = loaded.run(rows, encoded=prepared.encoded["validation"], objective=objective)
    except Interrupted:
        flow.interrupted = True
        return None
    return {"loss": output.loss or 0.0, **task.metrics(output.predictions, rows)}
