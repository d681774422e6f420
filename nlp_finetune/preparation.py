"""Recipe -> Prepared: data read, columns found, split, tokenized; all that can be known without weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune import augmenting, choices, inference
from nlp_finetune.arguments import check_extra
from nlp_finetune.data import groups, sources, splits
from nlp_finetune.data.batching import planned_steps
from nlp_finetune.errors import InputError
from nlp_finetune.models import checkpoint as checkpoints
from nlp_finetune.models import own_head
from nlp_finetune.models.loading import check_family, load_config
from nlp_finetune.recipe import Recipe
from nlp_finetune.runs import card
from nlp_finetune.runs.tracking import check_installed
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.tasks import base

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig

    from nlp_finetune.augment.images import ImageChange
    from nlp_finetune.augment.texts import TextChange

_PREPROCESSING = 2
"""Version of tokenization; part of the cache's name, so raise it when `encode` of any task changes."""


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
    """One a split, of its encoded rows: of data, processor and preprocessing; of `train` of its changes too."""
    change: TextChange | ImageChange | None = None
    """What changes training rows."""

    @property
    def metric(self) -> str:
        """Metric that picks the best checkpoint."""
        return self.task.judged_by

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
    head = choices.own_head(recipe.head)
    if head is not None:
        own_head.check(plain, head, auto_class=task.auto_class, task=recipe.task.name)
    with runtime.main_first():
        loaded = _load_data(recipe, task)
    for note in loaded.notes:
        tell(note)
    rows = _split(recipe, task.prepare(loaded.splits, tell), task, tell)
    choices.check(recipe, task, runtime)
    if recipe.train.metric != "auto":
        task.asked_metric = recipe.train.metric
    config = load_config(checkpoint, overrides=task.config_overrides(), edits=recipe.model.config)
    task.check_format(recipe.model.save_format, config)
    processor = task.processor(
        checkpoint, tokenizer=recipe.model.tokenizer, rows=rows["train"], config=config, say=tell
    )
    change = augmenting.change(recipe.augment, processor, tell)
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
    digests["train"] = augmenting.digest(digests["train"], change)
    return Prepared(recipe, task, checkpoint, config, processor, loaded, rows, encoded, digests, change)


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
    if data.folds is not None and data.fold is not None:
        rows = _fold(rows, task, folds=data.folds, number=data.fold, seed=seed, tell=tell)
    elif "validation" not in rows:
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


def _fold(
    rows: dict[str, Dataset], task: base.BaseTask, *, folds: int, number: int, seed: int, tell: Callable[[str], None]
) -> dict[str, Dataset]:
    """Validate on one fold of the training rows, and train on the others."""
    given = {"folds": folds, "number": number, "seed": seed}
    grouped = groups.fold(rows["train"], **given, group=task.row_group)
    train, held_out = grouped or splits.fold(rows["train"], **given, stratum=task.row_label)
    how = "whole groups that share a text" if grouped else "stratified"
    left = f"; the {len(rows['validation'])} validation rows of the data are left out" if "validation" in rows else ""
    tell(f"fold {number} of {folds}: validated on {len(held_out)} training rows, trained on {len(train)}, {how}{left}")
    return {**rows, "train": train, "validation": held_out}


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
