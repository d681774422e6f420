"""Several fits as one: the same recipe with several seeds, folds or losses, or in stages that train more layers.

Each part is an ordinary run in `<output_dir>/parts/NAME/`, which resumes, predicts and evaluates like any other.
On top stand the files of the part that is best on validation, and in `metrics.json` what can be said of all parts:
under `seeds` the spread of every score, under `stages` the curve.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers
from nlp_finetune import joining
from nlp_finetune.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED, NlpFinetuneError, StoppedError
from nlp_finetune.folds import Folds
from nlp_finetune.job import Result
from nlp_finetune.recipe import Recipe, to_yaml
from nlp_finetune.reports import live
from nlp_finetune.resuming import refuse_other_run
from nlp_finetune.runs import card
from nlp_finetune.runs.folder import RunFolder, read_json, replaced_folder, write_json, write_text
from nlp_finetune.runs.publishing import preflight, publish
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.series import Seeds, Series
from nlp_finetune.stopping import StopRequest, command_with, stop_request
from nlp_finetune.train import default_folder, destination_of, train

_PARTS = "parts"
_FOLDERS = ("model", "adapter", "base", "predictions")


def fit(
    recipe: Recipe, *, strict: bool = False, timeout_s: float | None = None, stop: StopRequest | None = None
) -> Result:
    """Train as the recipe says: once, once for each of `train.seeds`, `data.folds` or the losses of
    `loss.imbalance`, or in the stages of `freeze.until`.

    Raises what `train` raises; a run that was stopped goes on with the part at which it stopped. `stop` has
    taken over the signals already, if given.
    """
    if stop is None:
        with stop_request(recipe) as own:
            return fit(recipe, strict=strict, timeout_s=timeout_s, stop=own)
    if not _is_several(recipe):
        return train(recipe, strict=strict, timeout_s=timeout_s, stop=stop)
    folder = RunFolder(recipe.output_dir) if recipe.output_dir else None
    if folder is not None:
        # Without a recipe on top, a first part was stopped half-way: it will see itself whose it is.
        if folder.recipe.is_file() or not (folder.path / _PARTS).is_dir():
            refuse_other_run(folder, recipe)
        if folder.is_finished:
            return Result(str(folder), read_json(folder.metrics), already_finished=True)
    runtime = joining.start(threads=recipe.train.threads, timeout_s=timeout_s)
    destination = destination_of(recipe)
    if destination is not None:
        runtime.on_main(lambda: preflight(destination, say=say))
    folder = runtime.on_main(lambda: folder or default_folder(recipe))
    folder.refuse_unwritable()
    standing = _Standing(folder, runtime)
    with _honest(standing, stop):
        series = _series(recipe, runtime)
        results = _fit_parts(series, recipe, standing, stop, strict=strict)
        standing.at = "the end, where the parts are put together"
        metrics: dict[str, Any] = runtime.on_main(lambda: _gather(series, folder, results))
    if destination is not None and runtime.is_main:
        stop.release()  # the run is finished; a push can be done again
        again = f"nlp-finetune push {shlex.quote(str(folder))} {shlex.join(destination.options())}"
        say(f"pushed: {publish(folder, destination, again=again, say=say).url}")
    return Result(str(folder), metrics)


def _is_several(recipe: Recipe) -> bool:
    folds = recipe.data.folds is not None and recipe.data.fold is None
    return folds or any(part is not None for part in (recipe.train.seeds, recipe.freeze.until, recipe.loss.imbalance))


def _series(recipe: Recipe, runtime: Runtime) -> Series:
    if recipe.loss.imbalance is not None:
        from nlp_finetune import imbalance

        return imbalance.of_recipe(recipe, runtime)
    if recipe.data.folds is not None and recipe.data.fold is None:
        return Folds(recipe)
    if recipe.freeze.until is not None:
        from nlp_finetune.stages import of_recipe

        return of_recipe(recipe, runtime)
    return Seeds(recipe)


@dataclass
class _Standing:
    """How far a series has come, for `status.json` on top: parts that are done, and what it is at."""

    folder: RunFolder
    runtime: Runtime
    at: str = "the beginning"
    done: int = 0

    def note(self, state: str, *, code: int | None = None, reason: str = "") -> None:
        """Write it down; a first part that was refused has left nothing, and neither do we."""
        if self.runtime.is_main and self.folder.path.is_dir():
            with suppress(OSError):  # on a full disk the message that follows is what counts
                self.folder.set_status(state, exit_code=code, reason=reason, step=self.done)

    def stopped(self, code: int) -> StoppedError:
        """Note that a request to stop ended the series here; the error that says how to go on."""
        self.note("stopped", code=code, reason=f"stopped at {self.at}")
        return StoppedError(f"stopped at {self.at}. To go on:\n  {command_with(self.folder)}")


@contextmanager
def _honest(standing: _Standing, stop: StopRequest) -> Iterator[None]:
    """Write into `status.json` on top how the block ended, wherever in it or between its parts that was."""
    try:
        yield
    except StoppedError as error:
        raise standing.stopped(error.exit_code) from error
    except NlpFinetuneError as error:
        standing.note("failed", code=error.exit_code, reason=str(error))
        raise
    except BaseException as error:
        if stop.ended_early(error):
            raise standing.stopped(EXIT_STOPPED) from error
        if isinstance(error, KeyboardInterrupt):
            standing.note("stopped", code=EXIT_INTERRUPTED, reason=f"interrupted twice, at {standing.at}")
        else:
            standing.note("failed", code=EXIT_FAILED, reason=f"{type(error).__name__}: {error}")
        raise


def _fit_parts(series: Series, recipe: Recipe, standing: _Standing, stop: StopRequest, *, strict: bool) -> list[Result]:
    """One run a part, one after the other; `status.json` on top says how far it came, in parts."""
    results: list[Result] = []
    folder, runtime = standing.folder, standing.runtime
    while (part := series.next(folder, results)) is not None:
        standing.at = part.label
        # Asked while the part before was finished, which nothing could cut short any more.
        if runtime.any(stop.reason is not None)[0]:
            raise StoppedError
        say(f"{part.label}: {part.recipe.output_dir}")
        if folder.recipe.is_file():
            standing.note("running", reason=part.label)
        results.append(train(part.recipe, strict=strict, stop=stop))
        standing.done = len(results)
        runtime.on_main(lambda: _claim(recipe, folder))
        standing.note("running", reason=part.label)
        if (line := series.done(results)) is not None:
            say(line)
    return results


def _claim(recipe: Recipe, folder: RunFolder) -> None:
    if not folder.recipe.is_file():
        write_text(folder.recipe, to_yaml(recipe))


def _gather(series: Series, folder: RunFolder, results: Sequence[Result]) -> dict[str, Any]:
    """Put the best part's files on top, and what can be said of all parts into `metrics.json`."""
    best = series.best(results)
    chosen = RunFolder(results[best].output_dir)
    for name in _FOLDERS:
        source = chosen.path / name
        if source.is_dir():
            with replaced_folder(folder.path / name) as partial:
                shutil.copytree(source, partial, dirs_exist_ok=True)
    for file in sorted(f for f in chosen.path.iterdir() if f.is_file()):
        if file.name not in (folder.recipe.name, folder.metrics.name, folder.status.name):
            _copy(file, folder.path / file.name)
    # Where the first part began is where all of it began: a later one may have gone on from another.
    first = RunFolder(results[0].output_dir).sources
    _copy(first, folder.path / first.name)
    summary = series.summary(results)
    metrics = {**results[best].metrics, series.key: summary}
    series.write(folder, summary)
    write_json(folder.metrics, metrics)
    card.write(folder)
    folder.set_status("finished", exit_code=EXIT_DONE, reason="", step=metrics["best"]["step"])
    live.write_final(folder, say)
    say(f"{chosen.path.name} is best on validation: its model is {folder.model}")
    return metrics


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)
