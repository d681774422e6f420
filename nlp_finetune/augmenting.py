"""The recipe's section `augment` -> functions that change training rows, and why they do not fit a task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from nlp_finetune.augment import images, masked_words, synonyms, texts
from nlp_finetune.augment.images import ImageChange
from nlp_finetune.augment.rows import ChangedTexts, numbered_windows
from nlp_finetune.augment.texts import TextChange
from nlp_finetune.data.drawing import DrawnRows
from nlp_finetune.data.mixing import MixedImages, MixedTexts, Mixing
from nlp_finetune.errors import InputError
from nlp_finetune.recipe import Augment
from nlp_finetune.tasks import base

if TYPE_CHECKING:
    from datasets import Dataset

    from nlp_finetune.data.balancing import BalancedClasses
    from nlp_finetune.learning.regularizers import Objective
    from nlp_finetune.preparation import Prepared

_FUNCTIONS: tuple[type[texts.TextFunction], ...] = (masked_words.MaskedWords, *texts.FUNCTIONS)
_KEEPS = {function.name: function.keeps for function in _FUNCTIONS}


def check(augment: Augment, task: base.BaseTask, *, workers: int | str = "auto") -> None:
    """Raise `InputError` for a way of changing rows that would break what the task learns from."""
    name = task.options.name
    if augment.images and not task.images:
        raise InputError(f"augment.{next(iter(augment.images))}: {name} has no images; leave it out.")
    for key in augment.text:
        if not task.changeable_texts:
            why = "images have no words" if task.images else "what these rows read is what they learn"
            raise InputError(f"augment.{key}: {why}; leave it out for {name}.")
        if missing := task.keeps_needed - _KEEPS[key]:
            fitting = [other for other, keeps in _KEEPS.items() if task.keeps_needed <= keeps]
            raise InputError(
                f"augment.{key}: does not keep {' and '.join(sorted(missing))}, which {name} needs; "
                f"{', '.join(fitting)} do."
            )
    if augment.masked_lm and workers not in ("auto", 0):
        raise InputError(
            "augment.masked_lm: runs a model, which loading processes can't share; leave train.workers at auto."
        )


def change(augment: Augment, processor: Any, say: Callable[[str], None]) -> TextChange | ImageChange | None:
    """What changes training rows, None where nothing does. Raises `InputError` for a table or model that is none."""
    found: TextChange | ImageChange | None = None
    if augment.text:
        found = TextChange(_text_functions(augment, say))
    elif augment.images:
        found = images.make(
            processor.preprocessing, images.ImageWays(**augment.images), probability=augment.probability
        )
    if found is not None:
        say(f"augment: {augment.probability:.0%} of the training rows are changed in each epoch: {describe(augment)}")
    return found


def describe(augment: Augment) -> str:
    """The ways in which rows are changed, in their order, in one line."""
    ways = {**{name: getattr(augment, name) for name in augment.text}, **augment.images}
    return ", ".join(name if value is True else f"{name} {value}" for name, value in ways.items())


def details(augment: Augment) -> dict[str, dict[str, str]]:
    """The table of `check` that says how training rows are changed; none where they are not."""
    if not (augment.text or augment.images):
        return {}
    rows = f"{augment.probability:.0%} of the training rows, in each epoch anew"
    return {"Augmentation": {"changed": rows, "by": describe(augment)}}


def _text_functions(augment: Augment, say: Callable[[str], None]) -> list[texts.TextFunction]:
    table = None if augment.synonym_table is None else synonyms.read(augment.synonym_table, say)
    made: list[texts.TextFunction] = []
    if augment.masked_lm:
        made.append(masked_words.load(str(augment.masked_lm_checkpoint), share=augment.masked_lm, say=say))
    for function in texts.FUNCTIONS:
        share = getattr(augment, function.name)
        if share:
            with_table = {"synonyms": table} if function in (texts.Synonym, texts.Insert) else {}
            made.append(function(share=share, **with_table))  # type: ignore[call-arg]
    return made


def digest(encoded: str, change: TextChange | ImageChange | None) -> str:
    """Name of training rows by their own digest and by the files that their changes come from."""
    tables = [t.digest for f in getattr(change, "functions", []) if (t := getattr(f, "synonyms", None)) is not None]
    return encoded if not tables else hashlib.sha256("".join([encoded, *tables]).encode()).hexdigest()[:32]


def drawn_rows(prepared: Prepared) -> DrawnRows:
    """The training rows as they are drawn: changed where the recipe says so, the same way wherever that happens."""
    task, processor, seed = prepared.task, prepared.processor, prepared.recipe.train.seed
    encoded = prepared.encoded["train"]
    if isinstance(prepared.change, TextChange):
        return DrawnRows(numbered_windows(encoded), transform=_changed_texts(prepared, prepared.change), seed=seed)
    return DrawnRows(encoded, transform=task.transform(processor, change=prepared.change), seed=seed)


def mixed_rows(
    prepared: Prepared, rows: DrawnRows, collate: Any, objective: Objective, balanced: BalancedClasses | None
) -> tuple[DrawnRows, Any, Objective]:
    """Training rows, collator and objective with rows mixed as `regularize.mixup` and `cutmix` say."""
    from nlp_finetune.learning.mixing import mixed

    chosen, task, processor = prepared.recipe.regularize, prepared.task, prepared.processor
    mixing = Mixing(
        list(prepared.encoded["train"]["length"]), rows.seed, chosen.mixup, chosen.cutmix,
        None if balanced is None else balanced.chances,
    )  # fmt: skip
    drawn = DrawnRows(rows.rows, transform=rows.transform, seed=rows.seed, mixing=mixing)
    together = (
        MixedImages(collate) if task.mixes == "pixels" else MixedTexts(collate, left=processor.padding_side == "left")
    )
    classes = len(task.config_overrides().get("id2label", {}))
    return drawn, together, mixed(objective, classes=classes)


def _changed_texts(prepared: Prepared, change: TextChange) -> ChangedTexts:
    rows: Dataset = prepared.rows["train"]
    return ChangedTexts(
        rows=rows,
        change=partial(_change_row, prepared.task, change),
        encode=partial(_encode, prepared.task, prepared.processor),
        probability=prepared.recipe.augment.probability,
    )


def _change_row(task: base.BaseTask, change: TextChange, row: Any, random: Any) -> Any:
    return task.changed(row, change, random)


def _encode(task: base.BaseTask, processor: Any, rows: dict[str, list[Any]]) -> Any:
    return task.encode(rows, processor)
