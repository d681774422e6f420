"""train(recipe) -> Result: check, build, fit, evaluate the saved best, save."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from nlp_finetune import check, joining, resuming
from nlp_finetune import runtime as processes
from nlp_finetune.build import Built, build
from nlp_finetune.callbacks import lower_is_better
from nlp_finetune.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED, NlpFinetuneError, StoppedError
from nlp_finetune.finishing import finish
from nlp_finetune.fitting import Attempt, fit
from nlp_finetune.job import Result
from nlp_finetune.models import adapters
from nlp_finetune.network import lost_contact
from nlp_finetune.preparation import Prepared, prepare
from nlp_finetune.recipe import Recipe, to_yaml
from nlp_finetune.reports import live
from nlp_finetune.runs import card, sources
from nlp_finetune.runs.destination import Destination
from nlp_finetune.runs.folder import RunFolder, disk_faults, read_json, write_json, write_text
from nlp_finetune.runs.publishing import preflight, publish
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.stopping import Interrupted, StopRequest, command_with, stop_request
from nlp_finetune.versions import code, environment


def train(
    recipe: Recipe, *, strict: bool = False, timeout_s: float | None = None, stop: StopRequest | None = None
) -> Result:
    """Fine-tune as the recipe says, or go on where the same recipe stopped in `output_dir`.

    `timeout_s` is the longest that a process waits for another one in training.
    Raises `InputError` before anything is written where recipe, data or checkpoint are wrong, and
    `StoppedError` where a signal or `train.max_time` stopped it. `stop` has taken over the signals
    already, if given.
    """
    if stop is not None:
        return _train(recipe, stop, strict=strict, timeout_s=timeout_s)
    with stop_request(recipe) as own:
        return _train(recipe, own, strict=strict, timeout_s=timeout_s)


def _train(given: Recipe, stop: StopRequest, *, strict: bool, timeout_s: float | None) -> Result:
    folder = RunFolder(given.output_dir) if given.output_dir else None
    changes = [] if folder is None else resuming.refuse_other_run(folder, given)
    if folder is not None and folder.is_finished:
        return Result(str(folder), read_json(folder.metrics), already_finished=True)
    with _status_if_stopped(folder, stop):
        recipe = given
        if folder is not None:
            recipe = resuming.with_decisions(given, folder, processes=joining.announced())
        runtime = joining.start(threads=recipe.train.threads, timeout_s=timeout_s)
        stop.announces = runtime.is_main
        say(runtime.described)
        for change in changes:
            say(f"going on with another {change}")
        destination = destination_of(recipe)
        if destination is not None:
            # A token that cannot push stops the run in its first second, not after hours.
            header = card.skeleton(recipe.hub.card)
            runtime.on_main(lambda: preflight(destination, say=say, card=header))
        processes.set_seed(recipe.train.seed)
        prepared = prepare(recipe, runtime)
        if folder is not None and recipe.train.resume == "auto":
            resuming.refuse_other_data(folder, prepared)
        report = runtime.on_main(lambda: check.data_report(prepared, strict=strict))
        folder = runtime.on_main(lambda: folder or default_folder(recipe))
        folder.refuse_unwritable()
        identity = resuming.identity(given, prepared)
        make = partial(_make, prepared, folder, runtime, stop, about={**identity, "code": code()})
        attempt = Attempt(make())
        if recipe.train.resume == "auto":
            resuming.refuse_other_base(folder, attempt.built.job.model)
        if not folder.checkpoints.is_dir():
            folder.refuse_full(least_bytes=_least_bytes(attempt.built, recipe))
        runtime.on_main(folder.create)
    with stop.held(), _status(folder, runtime, attempt):
        try:
            runtime.on_main(lambda: _record_start(folder, given, prepared, attempt.built, report, runtime))
            best_step = fit(attempt, folder, prepared, identity, runtime, build_again=make)
            if attempt.built.flow.interrupted:
                raise Interrupted
            metrics = finish(prepared, attempt.built, folder, best_step, report, runtime, stop)
        except Interrupted:
            raise StoppedError(_stopped_message(folder, attempt.step, stop.reason)) from None
    if destination is not None and runtime.is_main:
        stop.release()  # the run is finished; a push can be done again
        again = f"{processes.program()} push {shlex.quote(str(folder))} {shlex.join(destination.options())}"
        say(f"pushed: {publish(folder, destination, again=again, say=say).url}")
    return Result(str(folder), metrics)


def destination_of(recipe: Recipe) -> Destination | None:
    """Where the finished run is to be pushed, if anywhere."""
    if recipe.hub.repo_id is None:
        return None
    destination = Destination(recipe.hub.repo_id, private=recipe.hub.private, merge=recipe.hub.merge)
    destination.check()
    return destination


def default_folder(recipe: Recipe) -> RunFolder:
    """Where a run goes that was given no folder: `runs/NAME/TIME`."""
    return RunFolder(Path("runs") / recipe.name / datetime.now().strftime("%Y%m%d-%H%M%S"))


@contextmanager
def _status_if_stopped(folder: RunFolder | None, stop: StopRequest) -> Iterator[None]:
    """A run that is stopped while it is prepared says so too: job scripts start it again."""
    try:
        yield
    except BaseException as error:
        if not stop.ended_early(error):
            raise
        if folder is not None and joining.announced_rank() == 0:
            with suppress(OSError):
                folder.path.mkdir(parents=True, exist_ok=True)
                step = int(read_json(folder.status).get("step", 0))
                folder.set_status("stopped", exit_code=EXIT_STOPPED, reason=stop.early_message, step=step)
        raise StoppedError(stop.early_message) from error


@contextmanager
def _status(folder: RunFolder, runtime: Runtime, attempt: Attempt) -> Iterator[None]:
    """Write into status.json how the block ended, also where it failed."""

    def write(state: str, code: int | None, reason: str) -> None:
        if runtime.is_main:
            folder.set_status(state, exit_code=code, reason=reason, step=attempt.step)

    def ended(state: str, code: int, reason: str) -> None:
        with suppress(OSError):  # on a full disk the message that follows is what counts
            write(state, code, reason)

    with disk_faults("status.json", folder.path):
        write("running", None, "")
    try:
        yield
    except StoppedError as error:
        ended("stopped", EXIT_STOPPED, str(error))
        raise
    except NlpFinetuneError as error:
        ended("failed", error.exit_code, str(error))
        raise
    except KeyboardInterrupt:
        ended("stopped", EXIT_INTERRUPTED, "interrupted twice; the same command goes on from the last checkpoint")
        raise
    except BaseException as error:
        lost = lost_contact(error) if runtime.processes > 1 else None
        if lost is not None:
            message = _lost_message(folder, attempt.step, lost, runtime)
            # Whoever is left writes it: the main process may be the one that is gone.
            folder.set_status("failed", exit_code=EXIT_FAILED, reason=message, step=attempt.step)
            raise NlpFinetuneError(message) from error
        ended("failed", EXIT_FAILED, f"{type(error).__name__}: {error}")
        raise
    finally:
        if runtime.is_main:
            live.write_final(folder, say)


def _make(
    prepared: Prepared, folder: RunFolder, runtime: Runtime, stop: StopRequest, *, about: dict[str, Any]
) -> Built:
    """The job of a run and what listens to it, the same each time that it is made."""
    processes.set_seed(prepared.recipe.train.seed)
    built = build(prepared, folder, runtime, stop, about=about)
    if runtime.is_main:
        _add_live_report(prepared, built, folder)
    return built


def _add_live_report(prepared: Prepared, built: Built, folder: RunFolder) -> None:
    report = live.LiveReport(
        folder,
        metric=prepared.metric,
        greater_is_better=not lower_is_better(prepared.metric),
        time_split=lambda: built.stopwatch.split,
        say=say,
    )
    # The last callback saves and restarts the watch: what is drawn before it counts as saving.
    built.job.callbacks.insert(-1, report)


def _record_start(
    folder: RunFolder, recipe: Recipe, prepared: Prepared, built: Built, report: check.DataReport, runtime: Runtime
) -> None:
    """Write down what this run is, before its first step; the recipe last, because with it the run has begun."""
    with disk_faults("what the run is", folder.path):
        write_json(folder.environment, {**environment(), **_parallel(runtime)})
        write_json(
            folder.decisions,
            {
                "precision": built.precision,
                "loss": prepared.task.losses()[0] if recipe.loss.name == "auto" else recipe.loss.name,
                "threads": runtime.threads,
                "gradient_checkpointing": "on" if built.recomputes else "off",
                "micro_batch_size": built.job.args.per_device_train_batch_size,
                "base_weights": adapters.digest_of_base(built.job.model),
                "frozen_cache": built.cache is not None,
            },
        )
        write_json(folder.check, report.as_json())
        write_json(
            folder.sources,
            sources.describe(
                prepared.checkpoint,
                source=recipe.data.source,
                train=recipe.data.train,
                origins=report.origins,
                data_about=prepared.loaded.about,
            ),
        )
        if recipe.hub.card is not None:
            write_text(folder.own_card, card.read_own(recipe.hub.card))
        resuming.record_data(folder, prepared)
        write_text(folder.recipe, to_yaml(recipe))


def _least_bytes(built: Built, recipe: Recipe) -> int:
    """What a run writes at the very least: its weights three times, or twice where adapters are merged in the end.

    Once more for an average; of the best weights that a soup is made from, two are sure to be there.
    """
    model = built.job.model
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if adapters.is_adapted(model):
        return weights * 2
    return weights * (3 if recipe.average.name is None else 4)


def _parallel(runtime: Runtime) -> dict[str, Any]:
    return {"processes": runtime.processes, "strategy": runtime.strategy, "backend": runtime.backend}


def _lost_message(folder: RunFolder, step: int, lost: str, runtime: Runtime) -> str:
    return (
        f"process {runtime.rank} of {runtime.processes} on {socket.gethostname()} lost contact with another after "
        f"step {step} ({lost}). Look at the other machine's log. The same command goes on from the newest checkpoint "
        f"in {folder.checkpoints}."
    )


def _stopped_message(folder: RunFolder, step: int, reason: str | None) -> str:
    return (
        f"stopped by {reason or 'another process'} after step {step}; the checkpoint is in {folder.checkpoints}. "
        f"To go on:\n  {command_with(folder)}"
    )
