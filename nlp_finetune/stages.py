"""`freeze.until`: the head trains first, then one group of layers more in each stage, until it is good enough.

A stage is an ordinary run that starts from the best weights of the stage before, with a schedule of its own. The
series ends where validation reaches the target, where a stage brings nothing, or where all layers train; what it leaves
is a curve, layers trained -> score, time, parameters, and a run for each point of it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from nlp_finetune.callbacks import lower_is_better
from nlp_finetune.errors import InputError
from nlp_finetune.job import Result
from nlp_finetune.models.freezing import Stage
from nlp_finetune.models.heads import shorten
from nlp_finetune.recipe import Hub, Recipe
from nlp_finetune.runs.folder import RunFolder, write_text
from nlp_finetune.runtime import Runtime
from nlp_finetune.series import Part, best_part, folder_of

COLUMNS = ("stage", "added", "layers", "score", "test_score", "parameters", "seconds", "cache_seconds", "steps")
"""Columns of the curve, as `stages.csv` has them."""


class Stages:
    """The stages of a recipe with `freeze.until`, from what its model consists of."""

    key = "stages"

    def __init__(self, recipe: Recipe, stages: Sequence[Stage], *, metric: str) -> None:
        assert recipe.freeze.until is not None
        self.recipe, self.stages, self.metric = recipe, stages, metric
        self.target, self.patience = recipe.freeze.until.target, recipe.freeze.until.patience

    def next(self, folder: RunFolder, results: Sequence[Result]) -> Part | None:
        if self.why_ended(results) is not None:
            return None
        number = len(results) + 1
        name = f"stage-{number}"
        label = f"stage {number} of at most {len(self.stages)}, {shorten(self.stages[number - 1].added, 3)}"
        return Part(name, label, self._recipe(folder, number, name))

    def _recipe(self, folder: RunFolder, number: int, name: str) -> Recipe:
        recipe, layers = self.recipe, self.stages[number - 1].frozen
        freeze: dict[str, Any] = {"until": None, "layers": layers}
        if layers is None and recipe.freeze.cache == "on":
            freeze["cache"] = "auto"  # nothing is frozen any more whose output could be kept
        update: dict[str, Any] = {
            "freeze": recipe.freeze.model_copy(update=freeze),
            "train": recipe.train.model_copy(update={"metric": self.metric}),
            "hub": Hub(),
            "output_dir": str(folder_of(folder, name)),
        }
        if number > 1:
            before = folder_of(folder, f"stage-{number - 1}")
            start: dict[str, Any] = {"checkpoint": str(before), "revision": None, "tokenizer": None, "config": {}}
            update["model"] = recipe.model.model_copy(update=start)
        return recipe.model_copy(update=update)

    def why_ended(self, results: Sequence[Result]) -> str | None:
        """Why there is no further stage; None where there is one."""
        if not results:
            return None
        best = self.best(results)
        value, name = self._value(results[best]), self._name(results)
        if value <= self.target if lower_is_better(name) else value >= self.target:
            return f"the target is reached: validation {name} {value:.4f}"
        if len(results) - 1 - best >= self.patience:
            more = "the last stage" if self.patience == 1 else f"none of the last {self.patience} stages"
            return f"{more} {'brought nothing' if self.patience == 1 else 'brought anything'}"
        if len(results) == len(self.stages):
            return "all layers train that may"
        return None

    def _name(self, results: Sequence[Result]) -> str:
        """The metric that decides; what `auto` is the task knows."""
        return str(results[0].metrics["best"]["metric"])

    def _value(self, result: Result) -> float:
        return float(result.metrics["best"]["value"])

    def done(self, results: Sequence[Result]) -> str | None:
        row = self.curve(results)[-1]
        said = (
            f"stage {row['stage']}: validation {self._name(results)} {row['score']:.4f} (target {self.target:g}), "
            f"{row['parameters']:,} parameters, {row['seconds']:.1f} s"
        )
        why = self.why_ended(results)
        return said if why is None else f"{said}; no further stage: {why}"

    def best(self, results: Sequence[Result]) -> int:
        return best_part([result.metrics["best"] for result in results])

    def curve(self, results: Sequence[Result]) -> list[dict[str, Any]]:
        """One point a stage; seconds are those of training, its evaluations and saving, and of filling the cache."""
        rows = []
        for number, result in enumerate(results, 1):
            metrics, figures = result.metrics, result.metrics["train"]
            cache = float((figures.get("frozen_cache") or {}).get("seconds", 0.0))
            row: dict[str, Any] = {
                "stage": number,
                "added": self.stages[number - 1].added,
                "layers": number,
                "score": self._value(result),
                "parameters": figures["trainable_parameters"],
                "seconds": round(sum(figures["time_split"].values()) + cache, 3),
                "cache_seconds": cache,
                "steps": figures["steps"],
                "folder": f"parts/stage-{number}",
            }
            if (name := self._name(results)) in metrics.get("test", {}):
                row["test_score"] = metrics["test"][name]
            rows.append(row)
        return rows

    def summary(self, results: Sequence[Result]) -> dict[str, Any]:
        why, best = self.why_ended(results), self.best(results)
        return {
            "metric": self._name(results),
            "target": self.target,
            "reached": bool(why and why.startswith("the target")),
            "ended": why,
            "best": best + 1,
            "curve": self.curve(results),
        }

    def write(self, folder: RunFolder, summary: Mapping[str, Any]) -> None:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in summary["curve"]:
            writer.writerow({**row, "added": " ".join(row["added"])})
        write_text(folder.path / "stages.csv", stream.getvalue())


def of_recipe(recipe: Recipe, runtime: Runtime) -> Stages:
    """The stages of a recipe, found in a model without memory.

    Raises `InputError` where there are no layers to add one by one, and for what does not go with them.
    """
    import torch

    import nlp_finetune.models  # noqa: F401  before the first import of transformers

    import transformers  # isort: skip
    from nlp_finetune.models import checkpoint as checkpoints
    from nlp_finetune.models.freezing import stages
    from nlp_finetune.models.loading import check_family, load_config
    from nlp_finetune.models.settings import is_foreign
    from nlp_finetune.tasks import base

    _check(recipe)
    given = recipe.model
    found = checkpoints.resolve(given.checkpoint, revision=given.revision, trust_remote_code=given.trust_remote_code)
    task = base.find(recipe.task.name)(recipe.task)
    with runtime.main_first():
        config = load_config(found, overrides={}, edits=given.config)
    check_family(config, auto_class=task.auto_class)
    with torch.device("meta"):
        model = getattr(transformers, task.auto_class).from_config(config, trust_remote_code=is_foreign(config))
    until = recipe.freeze.until
    assert until is not None
    asked = recipe.train.metric if until.metric == "auto" else until.metric
    return Stages(recipe, stages(model, floor=recipe.freeze.layers), metric=asked)


def _check(recipe: Recipe) -> None:
    until = recipe.freeze.until
    if recipe.train.seeds is not None:
        raise InputError("freeze.until: one series at a time; leave train.seeds out.")
    if recipe.optim.reinit_top_layers is not None:
        raise InputError("freeze.until: layers drawn anew would stay random in the first stages; leave out "
                         "optim.reinit_top_layers.")  # fmt: skip
    if recipe.lora is not None:
        raise InputError("freeze.until: lora freezes everything but adapters and head already; leave out freeze.until.")
    if until is not None and until.metric not in ("auto", recipe.train.metric) and recipe.train.metric != "auto":
        raise InputError(
            f"freeze.until.metric {until.metric}: train.metric is {recipe.train.metric}; each stage keeps its best by "
            "one metric. Leave one of them at auto."
        )
