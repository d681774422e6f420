"""train(recipe) -> Result: check, build, fit, evaluate the saved best, save."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from nlp_finetune import check
from nlp_finetune import runtime as processes
from nlp_finetune.build import Built, Prepared, build, prepare
from nlp_finetune.errors import EXIT_FAILED, EXIT_STOPPED, InputError, NlpFinetuneError, StoppedError
from nlp_finetune.finishing import finish
from nlp_finetune.job import Result
from nlp_finetune.network import lost_contact
from nlp_finetune.recipe import Recipe, differences, load, to_yaml
from nlp_finetune.runs import card, checkpoints, sources
from nlp_finetune.runs.destination import Destination
from nlp_finetune.runs.folder import RunFolder, read_json, write_json, write_text
from nlp_finetune.runs.publishing import preflight, publish
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.stopping import StopRequest
from nlp_finetune.tasks import base


def train(recipe: Recipe, *, strict: bool = False, timeout_s: float | None = None) -> Result:
    """Fine-tune as the recipe says, or go on where the same recipe stopped in `output_dir`.

    `timeout_s` is the longest that a process waits for another one in training.
    Raises `InputError` before anything is written where recipe, data or checkpoint are wrong, and
    `StoppedError` where a signal stopped training after a checkpoint.
    """
    given, folder = recipe, RunFolder(recipe.output_dir) if recipe.output_dir else None
    if folder is not None:
        refuse_other_run(folder, recipe)
        if folder.is_finished:
            return Result(str(folder), read_json(folder.metrics), already_finished=True)
        recipe = _with_decisions(recipe, read_json(folder.decisions))
    runtime = processes.start(threads=recipe.train.threads, timeout_s=timeout_s)
    say(runtime.described)
    destination = destination_of(recipe)
    if destination is not None:
        # A token that cannot push stops the run in its first second, not after hours.
        header = card.skeleton(recipe.hub.card)
        runtime.on_main(lambda: preflight(destination, say=say, card=header))
    processes.set_seed(recipe.train.seed)
    prepared = prepare(recipe, runtime)
    report = runtime.on_main(lambda: check.data_report(prepared, strict=strict))
    folder = runtime.on_main(lambda: folder or default_folder(recipe))
    folder.refuse_unwritable()
    stop = StopRequest()
    built = build(prepared, folder, runtime, stop)
    runtime.on_main(folder.create)
    with stop, _status(folder, runtime, built):
        runtime.on_main(lambda: _record_start(folder, given, prepared, built, report, runtime))
        best_step = _fit(built, folder, recipe, runtime)
        if built.flow.interrupted:
            raise StoppedError(_stopped_message(folder, built.flow.step, stop.signal_name))
    with _status(folder, runtime, built):
        metrics = finish(prepared, built, folder, best_step, report, runtime)
    if destination is not None and runtime.is_main:
        again = f"nlp-finetune push {shlex.quote(str(folder))} {shlex.join(destination.options())}"
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


def refuse_other_run(folder: RunFolder, recipe: Recipe) -> None:
    """A folder is taken by another recipe's run, or by files that are no run of ours."""
    if folder.recipe.is_file():
        changed = differences(saved_recipe(folder), recipe)
        if changed:
            raise InputError(
                f"output_dir {folder} holds the run of another recipe:\n  " + "\n  ".join(changed[:10])
                + "\nChoose another output_dir, or give the same settings to go on."
            )  # fmt: skip
    elif folder.path.is_dir() and any(folder.path.iterdir()):
        raise InputError(f"output_dir {folder} is not empty and holds no run. Choose another output_dir.")
    elif folder.path.exists() and not folder.path.is_dir():
        raise InputError(f"output_dir {folder} is a file. Choose another output_dir.")


def saved_recipe(folder: RunFolder) -> Recipe:
    """The resolved recipe that a run was started with."""
    return load(str(folder), task_options=base.options_of, task_names=base.names()).recipe


def _with_decisions(recipe: Recipe, decisions: dict[str, Any]) -> Recipe:
    """What `auto` decided when the run started holds for all of it."""
    update: dict[str, Any] = {
        name: decisions[name] for name in ("precision", "threads", "micro_batch_size") if name in decisions
    }
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=update)})


@contextmanager
def _status(folder: RunFolder, runtime: Runtime, built: Built) -> Iterator[None]:
    """Write into status.json how the block ended, also where it failed."""

    def write(state: str, code: int | None, reason: str) -> None:
        if runtime.is_main:
            folder.set_status(state, exit_code=code, reason=reason, step=built.flow.step)

    write("running", None, "")
    try:
        yield
    except StoppedError as error:
        write("stopped", EXIT_STOPPED, str(error))
        raise
    except NlpFinetuneError as error:
        write("failed", error.exit_code, str(error))
        raise
    except BaseException as error:
        lost = lost_contact(error) if runtime.processes > 1 else None
        if lost is not None:
            message = _lost_message(folder, built.flow.step, lost, runtime)
            # Whoever is left writes it: the main process may be the one that is gone.
            folder.set_status("failed", exit_code=EXIT_FAILED, reason=message, step=built.flow.step)
            raise NlpFinetuneError(message) from error
        write("failed", EXIT_FAILED, f"{type(error).__name__}: {error}")
        raise


def _record_start(
    folder: RunFolder, recipe: Recipe, prepared: Prepared, built: Built, report: check.DataReport, runtime: Runtime
) -> None:
    """Write down what this run is, before its first step."""
    write_text(folder.recipe, to_yaml(recipe))
    write_json(folder.environment, {**processes.environment(), **_parallel(runtime)})
    write_json(
        folder.decisions,
        {
            "precision": built.precision,
            "loss": prepared.task.losses()[0] if recipe.loss.name == "auto" else recipe.loss.name,
            "threads": runtime.threads,
            "micro_batch_size": built.job.args.per_device_train_batch_size,
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


def _parallel(runtime: Runtime) -> dict[str, Any]:
    return {"processes": runtime.processes, "strategy": runtime.strategy, "backend": runtime.backend}


def _fit(built: Built, folder: RunFolder, recipe: Recipe, runtime: Runtime) -> int:
    """Train, from the newest checkpoint where there is one; give the best step (0: stopped before any evaluation)."""
    job = built.job
    resume = recipe.train.resume == "auto"
    newest = runtime.on_main(lambda: checkpoints.newest(folder.checkpoints, say) if resume else None)
    if newest is not None:
        saved = checkpoints.load_callbacks(newest)
        state = checkpoints.load_trainer_state(newest)
        for callback in built.stateful:
            callback.load_state_dict(saved[type(callback).__name__])
        built.flow.step = state.global_step
        say(f"going on from {newest} (step {state.global_step} of {job.batches.steps})")
        if saved["training_ended"]:
            return state.best_global_step or 0
        job = replace(job, resume_from=str(newest))
    fit = _engine(recipe.train.engine)
    state = fit(job).state
    return state.best_global_step or 0


def _engine(name: str) -> Any:
    if name == "trainer":
        from nlp_finetune.engines.hf_trainer import fit
    else:
        from nlp_finetune.engines.loop import fit
    return fit


def _lost_message(folder: RunFolder, step: int, lost: str, runtime: Runtime) -> str:
    return (
        f"process {runtime.rank} of {runtime.processes} on {socket.gethostname()} lost contact with another after "
        f"step {step} ({lost}). Look at the other machine's log. The same command goes on from the newest checkpoint "
        f"in {folder.checkpoints}."
    )


def _stopped_message(folder: RunFolder, step: int, signal_name: str | None) -> str:
    return (
        f"stopped by {signal_name or 'another process'} after step {step}; the checkpoint is in "
        f"{folder.checkpoints}. The same command with output_dir={folder} goes on."
    )
