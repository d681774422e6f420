"""`loss.imbalance`: the plain loss, ways to make up for rare classes, and which of them validation prefers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nlp_finetune import choices
from nlp_finetune.errors import InputError
from nlp_finetune.job import Result
from nlp_finetune.learning.losses import WEIGHTED
from nlp_finetune.preparation import prepare
from nlp_finetune.recipe import Hub, Recipe
from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.runtime import Runtime
from nlp_finetune.series import Part, best_part, folder_of

Ways = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Name of a way to what it changes: section to key to value."""
_FAIR = ("macro_f1", "f1_macro")
"""Metrics in which every class counts as much as another."""


class Imbalance:
    """One run for each way, the plainest first: it wins a tie. Nothing but validation scores is looked at."""

    key = "imbalance"

    def __init__(self, recipe: Recipe, ways: Ways, *, metric: str) -> None:
        self.recipe, self.ways, self.metric = recipe, ways, metric

    def next(self, folder: RunFolder, results: Sequence[Result]) -> Part | None:
        if len(results) == len(self.ways):
            return None
        way, recipe = list(self.ways)[len(results)], self.recipe
        rows_seed = recipe.train.seed if recipe.data.seed is None else recipe.data.seed
        changes: dict[str, dict[str, Any]] = {
            "loss": {"imbalance": None},
            "data": {"seed": rows_seed},
            "train": {"metric": self.metric},
        }
        sections = {
            name: getattr(recipe, name).model_copy(update={**keys, **self.ways[way].get(name, {})})
            for name, keys in changes.items()
        }
        update = {**sections, "hub": Hub(), "output_dir": str(folder_of(folder, f"loss-{way}"))}
        label = f"loss.imbalance: {way} ({len(results) + 1} of {len(self.ways)})"
        return Part(f"loss-{way}", label, recipe.model_copy(update=update))

    def done(self, results: Sequence[Result]) -> str | None:
        return None if len(results) < len(self.ways) else f"loss.imbalance: {self.summary(results)['why']}"

    def summary(self, results: Sequence[Result]) -> dict[str, Any]:
        best, names = self.best(results), list(self.ways)
        scores = dict(zip(names, self._scores(results), strict=True))
        why = f"{names[best]} has the best validation {self.metric} ("
        why += ", ".join(f"{name} {value:.4f}" for name, value in scores.items()) + ")"
        why += "; none of the others is better, so the loss stays plain" if best == 0 else ""
        rows = results[0].metrics["validation"].get("rows")
        return {
            "metric": self.metric,
            "scores": scores,
            "best": names[best],
            "why": f"{why}; one run each, on {rows} validation rows: a small difference may be chance",
        }

    def best(self, results: Sequence[Result]) -> int:
        return best_part([{"metric": self.metric, "value": value} for value in self._scores(results)])

    def _scores(self, results: Sequence[Result]) -> list[float]:
        return [result.metrics["validation"][self.metric] for result in results]

    def write(self, folder: RunFolder, summary: Mapping[str, Any]) -> None:
        return None


def of_recipe(recipe: Recipe, runtime: Runtime) -> Imbalance:
    """The ways that fit the labels; raises `InputError` where these are not classes.

    Scores are compared by `train.metric`; where that is `auto`, by one in which every class counts alike.
    """
    task = prepare(recipe, runtime, tell=lambda _: None).task
    if not choices.class_names(task) or task.losses()[0] not in WEIGHTED:
        raise InputError(f"loss.imbalance: the labels of {recipe.task.name} are not classes here; leave it null.")
    ways: dict[str, dict[str, dict[str, Any]]] = {
        "plain": {},
        "balanced": {"loss": {"class_weights": "balanced"}},
    }
    if "focal" in task.losses():
        ways["focal"] = {"loss": {"name": "focal"}}
    if task.one_class_a_row:
        ways["sampler"] = {"data": {"sampler": "balanced"}}
    fair = next((name for name in _FAIR if name in task.metric_names()), task.metric)
    return Imbalance(recipe, ways, metric=fair if recipe.train.metric == "auto" else recipe.train.metric)
