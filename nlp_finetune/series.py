"""What the parts of a repeated run are: which comes next, what can be said of all of them, which one is best."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nlp_finetune.callbacks import lower_is_better
from nlp_finetune.job import Result
from nlp_finetune.recipe import Hub, Recipe
from nlp_finetune.runs.folder import RunFolder

_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Part:
    """One run of several: the name of its folder, what it is called in messages, and its recipe."""

    name: str
    label: str
    recipe: Recipe


class Series(Protocol):
    """Several runs as one. Everything follows from the results so far, so that a stopped series goes on."""

    key: str
    """Where `metrics.json` on top keeps the summary."""

    def next(self, folder: RunFolder, results: Sequence[Result]) -> Part | None:
        """The part that comes after those with these results; None where the series has ended."""

    def done(self, results: Sequence[Result]) -> str | None:
        """A line about the part that has just ended, if there is something to say."""

    def summary(self, results: Sequence[Result]) -> dict[str, Any]:
        """What can be said of all parts, as plain JSON."""

    def best(self, results: Sequence[Result]) -> int:
        """Position of the part whose files go on top."""

    def write(self, folder: RunFolder, summary: Mapping[str, Any]) -> None:
        """Write the summary in further forms beside `metrics.json`."""


def folder_of(folder: RunFolder, name: str) -> RunFolder:
    """The folder of a part."""
    return RunFolder(folder.path / "parts" / name)


class Seeds:
    """The same recipe with several seeds; the rows held out for validation are the same for all."""

    key = "seeds"

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.seeds = recipe.train.seeds or []

    def next(self, folder: RunFolder, results: Sequence[Result]) -> Part | None:
        number = len(results)
        if number == len(self.seeds):
            return None
        seed, recipe = self.seeds[number], self.recipe
        rows_seed = recipe.train.seed if recipe.data.seed is None else recipe.data.seed
        update = {
            "train": recipe.train.model_copy(update={"seed": seed, "seeds": None}),
            "data": recipe.data.model_copy(update={"seed": rows_seed}),
            "hub": Hub(),
            "output_dir": str(folder_of(folder, f"seed-{seed}")),
        }
        label = f"seed {seed} ({number + 1} of {len(self.seeds)})"
        return Part(f"seed-{seed}", label, recipe.model_copy(update=update))

    def done(self, results: Sequence[Result]) -> str | None:
        return None

    def summary(self, results: Sequence[Result]) -> dict[str, Any]:
        spread = summary([result.metrics for result in results], self.seeds)
        return {**spread, "best": self.seeds[self.best(results)]}

    def best(self, results: Sequence[Result]) -> int:
        return best_part([result.metrics["best"] for result in results])

    def write(self, folder: RunFolder, summary: Mapping[str, Any]) -> None:
        return None


def best_part(bests: Sequence[Mapping[str, Any]]) -> int:
    """Position of the part with the best validation score; the first of equals."""
    values = [best["value"] for best in bests]
    pick = min if lower_is_better(bests[0]["metric"]) else max
    return values.index(pick(values))


def summary(metrics: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Mean, sample standard deviation and range of every score of every split, and its value for each seed."""
    found: dict[str, Any] = {"seeds": list(seeds)}
    for split in _SPLITS:
        parts = [part[split] for part in metrics if split in part]
        if len(parts) != len(metrics):
            continue
        names = [name for name, value in parts[0].items() if isinstance(value, float)]
        found[split] = {name: _spread([part[name] for part in parts]) for name in names}
    return found


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values),
        "min": min(values),
        "max": max(values),
        "values": values,
    }
