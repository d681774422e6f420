"""Several fits as one: the same recipe with several seeds, and what can be said of it then.

Each part is an ordinary run in `<output_dir>/parts/NAME/`, which resumes, predicts and evaluates like any other.
On top stand the files of the part that is best on validation, and in `metrics.json` under `seeds` the mean,
standard deviation and range of every score. The rows held out for validation are the same for all parts.
"""

from __future__ import annotations

import shlex
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_finetune import runtime as processes
from nlp_finetune.callbacks import lower_is_better
from nlp_finetune.errors import EXIT_DONE, NlpFinetuneError, StoppedError
from nlp_finetune.job import Result
from nlp_finetune.recipe import Hub, Recipe, to_yaml
from nlp_finetune.reports import live
from nlp_finetune.resuming import refuse_other_run
from nlp_finetune.runs import card
from nlp_finetune.runs.folder import RunFolder, read_json, replaced_folder, write_json, write_text
from nlp_finetune.runs.publishing import preflight, publish
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.stopping import StopRequest, stop_request
from nlp_finetune.train import default_folder, destination_of, train

_PARTS = "parts"
_FOLDERS = ("model", "adapter", "base", "predictions")
_SPLITS = ("validation", "test")


def fit(
    recipe: Recipe, *, strict: bool = False, timeout_s: float | None = None, stop: StopRequest | None = None
) -> Result:
    """Train as the recipe says: once, or once for each of `train.seeds`.

    Raises what `train` raises; a run that was stopped goes on with the seed at which it stopped. `stop` has
    taken over the signals already, if given.
    """
    if stop is None:
        with stop_request(recipe) as own:
            return fit(recipe, strict=strict, timeout_s=timeout_s, stop=own)
    if recipe.train.seeds is None:
        return train(recipe, strict=strict, timeout_s=timeout_s, stop=stop)
    folder = RunFolder(recipe.output_dir) if recipe.output_dir else None
    if folder is not None:
        # Without a recipe on top, a first part was stopped half-way: it will see itself whose it is.
        if folder.recipe.is_file() or not (folder.path / _PARTS).is_dir():
            refuse_other_run(folder, recipe)
        if folder.is_finished:
            return Result(str(folder), read_json(folder.metrics), already_finished=True)
    runtime = processes.start(threads=recipe.train.threads, timeout_s=timeout_s)
    destination = destination_of(recipe)
    if destination is not None:
        runtime.on_main(lambda: preflight(destination, say=say))
    folder = runtime.on_main(lambda: folder or default_folder(recipe))
    folder.refuse_unwritable()
    results = _fit_parts(recipe, folder, runtime, stop, strict=strict)
    metrics: dict[str, Any] = runtime.on_main(lambda: _gather(recipe, folder, results))
    if destination is not None and runtime.is_main:
        stop.release()  # the run is finished; a push can be done again
        again = f"nlp-finetune push {shlex.quote(str(folder))} {shlex.join(destination.options())}"
        say(f"pushed: {publish(folder, destination, again=again, say=say).url}")
    return Result(str(folder), metrics)


def _fit_parts(recipe: Recipe, folder: RunFolder, runtime: Runtime, stop: StopRequest, *, strict: bool) -> list[Result]:
    """One run a seed, one after the other; `status.json` on top says how far it came."""
    seeds = recipe.train.seeds or []
    results: list[Result] = []

    def note(state: str, *, code: int | None = None, reason: str = "") -> None:
        if runtime.is_main and folder.path.is_dir():
            folder.set_status(state, exit_code=code, reason=reason, step=len(results))

    for number, seed in enumerate(seeds, 1):
        part = RunFolder(folder.path / _PARTS / f"seed-{seed}")
        say(f"seed {seed} ({number} of {len(seeds)}): {part}")
        try:
            results.append(train(_part(recipe, part, seed), strict=strict, stop=stop))
        except StoppedError as error:
            where = f"stopped at seed {seed} ({number} of {len(seeds)})"
            note("stopped", code=error.exit_code, reason=where)
            raise StoppedError(f"{where}. The same command with output_dir={folder} goes on.") from error
        except NlpFinetuneError as error:
            # A first part that was refused has left nothing, and neither do we.
            note("failed", code=error.exit_code, reason=str(error))
            raise
        runtime.on_main(lambda: _claim(recipe, folder))
        note("running")
    return results


def _claim(recipe: Recipe, folder: RunFolder) -> None:
    if not folder.recipe.is_file():
        write_text(folder.recipe, to_yaml(recipe))


def _part(recipe: Recipe, part: RunFolder, seed: int) -> Recipe:
    """The recipe of one part: another seed, the same rows held out, nothing pushed."""
    rows_seed = recipe.train.seed if recipe.data.seed is None else recipe.data.seed
    return recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update={"seed": seed, "seeds": None}),
            "data": recipe.data.model_copy(update={"seed": rows_seed}),
            "hub": Hub(),
            "output_dir": str(part),
        }
    )


def _gather(recipe: Recipe, folder: RunFolder, results: Sequence[Result]) -> dict[str, Any]:
    """Put the best part's files on top, and the spread of all parts into `metrics.json`."""
    seeds = recipe.train.seeds or []
    best = best_part([result.metrics["best"] for result in results])
    chosen = RunFolder(results[best].output_dir)
    for name in _FOLDERS:
        source = chosen.path / name
        if source.is_dir():
            with replaced_folder(folder.path / name) as partial:
                shutil.copytree(source, partial, dirs_exist_ok=True)
    for file in sorted(f for f in chosen.path.iterdir() if f.is_file()):
        if file.name not in (folder.recipe.name, folder.metrics.name, folder.status.name):
            _copy(file, folder.path / file.name)
    spread = summary([result.metrics for result in results], seeds)
    metrics = {**results[best].metrics, "seeds": {**spread, "best": seeds[best]}}
    write_json(folder.metrics, metrics)
    card.write(folder)
    folder.set_status("finished", exit_code=EXIT_DONE, reason="", step=metrics["best"]["step"])
    live.write_final(folder, say)
    live.write_final(folder, say)
    say(f"seed {seeds[best]} is best on validation: its model is {folder.model}")
    return metrics


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


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
