"""Soup: the weights of the best evaluations, averaged where that does better on the validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlp_finetune.build import Built
from nlp_finetune.callbacks import lower_is_better
from nlp_finetune.learning.averaging import greedy_soup, mean_weights
from nlp_finetune.preparation import Prepared
from nlp_finetune.runs import checkpoints, sealing
from nlp_finetune.runs.folder import RunFolder, disk_faults, replaced_folder
from nlp_finetune.runs.saving import BestWeights
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.stopping import Interrupted

_NAME = "best-soup"


@dataclass(frozen=True)
class Soup:
    """Which weights were averaged, and the validation score after each that was taken."""

    folder: Path
    metric: str
    steps: list[int]
    scores: list[float]
    candidates: list[int]

    def as_json(self) -> dict[str, Any]:
        """For `metrics.json`."""
        return {
            "steps": self.steps,
            "candidates": self.candidates,
            "metric": self.metric,
            "alone": self.scores[0],
            "value": self.scores[-1],
        }


def cook(prepared: Prepared, built: Built, folder: RunFolder, best_step: int, runtime: Runtime) -> Soup:
    """Choose, by validation alone, which of the kept weights to average; of one, the soup is itself.

    Raises `Interrupted` where the run is asked to stop meanwhile; all of it can be done again.
    """
    root, model, metric = folder.checkpoints, built.job.model.to(runtime.device), prepared.metric
    ranked = next(callback.kept for callback in built.stateful if isinstance(callback, BestWeights))
    candidates = [step for _, step in ranked]

    def stir(steps: Sequence[int]) -> None:
        read = [checkpoints.read_weights(model, checkpoints.best_folder(root, step)) for step in steps]
        checkpoints.put_weights(model, mean_weights(read), given=root)

    def score(steps: Sequence[int]) -> float:
        stir(steps)
        scores = built.job.score(model)
        if scores is None:
            raise Interrupted
        return scores[metric]

    if len(candidates) < 2:
        say("average.name soup: there was one evaluation, so the soup is its weights; set train.eval_every")
        value = next(value for value, _ in ranked)
        return Soup(checkpoints.best_folder(root, best_step), metric, candidates, [value], candidates)
    steps, scores = greedy_soup(candidates, score, lower_is_better=lower_is_better(metric))
    say(
        f"soup of {len(steps)} of the {len(candidates)} best evaluations (steps {', '.join(map(str, steps))}): "
        f"validation {metric} {scores[-1]:.4f}, the best alone {scores[0]:.4f}"
    )
    if len(steps) == 1:
        return Soup(checkpoints.best_folder(root, steps[0]), metric, steps, scores, candidates)
    stir(steps)
    runtime.on_main(lambda: _save(model, root))
    return Soup(root / _NAME, metric, steps, scores, candidates)


def _save(model: Any, root: Path) -> None:
    with disk_faults("the averaged weights", root), replaced_folder(root / _NAME) as partial:
        checkpoints.save_weights(model, partial, None)
        sealing.seal(partial)
