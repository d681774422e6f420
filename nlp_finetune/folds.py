"""`data.folds`: one run for each fold of the training rows, which validates on that fold and trains on the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nlp_finetune.job import Result
from nlp_finetune.recipe import Hub, Recipe
from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.series import Part, best_part, folder_of, summary


class Folds:
    """The folds of a recipe, one after the other; the model kept is that of the fold with the best score on its own."""

    key = "folds"

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.numbers = list(range(1, (recipe.data.folds or 0) + 1))

    def next(self, folder: RunFolder, results: Sequence[Result]) -> Part | None:
        if len(results) == len(self.numbers):
            return None
        number, recipe = self.numbers[len(results)], self.recipe
        # All parts must be dealt alike.
        rows_seed = recipe.train.seed if recipe.data.seed is None else recipe.data.seed
        update = {
            "data": recipe.data.model_copy(update={"fold": number, "seed": rows_seed}),
            "hub": Hub(),
            "output_dir": str(folder_of(folder, f"fold-{number}")),
        }
        return Part(f"fold-{number}", f"fold {number} of {len(self.numbers)}", recipe.model_copy(update=update))

    def done(self, results: Sequence[Result]) -> str | None:
        return None

    def summary(self, results: Sequence[Result]) -> dict[str, Any]:
        spread = summary([result.metrics for result in results], self.numbers)
        return {"folds": spread.pop("seeds"), **spread, "best": self.numbers[self.best(results)]}

    def best(self, results: Sequence[Result]) -> int:
        return best_part([result.metrics["best"] for result in results])

    def write(self, folder: RunFolder, summary: Mapping[str, Any]) -> None:
        return None
