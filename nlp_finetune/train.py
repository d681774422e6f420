"""train(recipe) -> Result: check, build, fit, evaluate the saved best, save."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from nlp_finetune import check, inference
from nlp_finetune import runtime as processes
from nlp_finetune.build import Built, Prepared, build, prepare, scorer
from nlp_finetune.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, InputError, NlpFinetuneError, StoppedError
from nlp_finetune.job import Result
from nlp_finetune.models import adapters
from nlp_finetune.recipe import Recipe, differences, load, to_yaml
from nlp_finetune.runs import checkpoints
from nlp_finetune.runs.destination import Destination
from nlp_finetune.runs.folder import TASK_FILE, RunFolder, read_json, replaced_folder, write_json, write_text
from nlp_finetune.runs.publishing import preflight, publish
from nlp_finetune.runtime import Runtime, StopRequest, say
from nlp_finetune.tasks import base


def train(recipe: Recipe, *, strict: bool = False) -> Result:
    """Fine-tune as the recipe says, or go on where the same recipe stopped in `output_dir`.

    Raises `InputError` before anything is written where recipe, data or checkpoint are wrong, and
    `StoppedError` where a signal stopped training after a checkpoint.
    """
    given, folder = recipe, RunFolder(recipe.output_dir) if recipe.output_dir else None
    if folder is not None:
        _refuse_other_run(folder, recipe)
        if folder.is_finished:
            return Result(str(folder), read_json(folder.metrics), already_finished=True)
        recipe = _with_decisions(recipe, read_json(folder.decisions))
    runtime = processes.start(threads=recipe.train.threads)
    destination = _destination(recipe)
    if destination is not None:
        # A token that cannot push stops the run in its first second, not after hours.
        runtime.on_main(lambda: preflight(destination, say=say))
    processes.set_seed(recipe.train.seed)
    prepared = prepare(recipe, runtime)
    report = runtime.on_main(lambda: check.data_report(prepared, strict=strict))
    folder = runtime.on_main(lambda: folder or _default_folder(recipe))
    folder.refuse_unwritable()
    stop = StopRequest()
    built = build(prepared, folder, runtime, stop)
    runtime.on_main(folder.create)
    with stop, _status(folder, runtime, built):
        runtime.on_main(lambda: _record_start(folder, given, built, report, runtime))
        best_step = _fit(built, folder, recipe, runtime)
        if built.flow.interrupted:
            raise StoppedError(_stopped_message(folder, built.flow.step, stop.signal_name))
    with _status(folder, runtime, built):
        metrics = _finish(prepared, built, folder, best_step, report, runtime)
    if destination is not None and runtime.is_main:
        again = f"nlp-finetune push {shlex.quote(str(folder))} {shlex.join(destination.options())}"
        say(f"pushed: {publish(folder, destination, again=again, say=say).url}")
    return Result(str(folder), metrics)


def _destination(recipe: Recipe) -> Destination | None:
    """Where the finished run is to be pushed, if anywhere."""
    if recipe.hub.repo_id is None:
        return None
    destination = Destination(recipe.hub.repo_id, private=recipe.hub.private)
    destination.check()
    return destination


def _default_folder(recipe: Recipe) -> RunFolder:
    return RunFolder(Path("runs") / recipe.name / datetime.now().strftime("%Y%m%d-%H%M%S"))


def _refuse_other_run(folder: RunFolder, recipe: Recipe) -> None:
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
        write("failed", EXIT_FAILED, f"{type(error).__name__}: {error}")
        raise


def _record_start(folder: RunFolder, recipe: Recipe, built: Built, report: check.DataReport, runtime: Runtime) -> None:
    """Write down what this run is, before its first step."""
    write_text(folder.recipe, to_yaml(recipe))
    write_json(folder.environment, {**processes.environment(), "processes": runtime.processes})
    write_json(
        folder.decisions,
        {
            "precision": built.precision,
            "threads": runtime.threads,
            "micro_batch_size": built.job.args.per_device_train_batch_size,
        },
    )
    write_json(folder.check, report.as_json())


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


def _finish(
    prepared: Prepared,
    built: Built,
    folder: RunFolder,
    best_step: int,
    report: check.DataReport,
    runtime: Runtime,
) -> dict[str, Any]:
    """Save the best weights as `model/`, load them back from disk, and measure those."""
    task = prepared.task
    best = checkpoints.best_folder(folder.checkpoints, best_step)
    figures = _training_figures(prepared, built, runtime)
    weights, adapter_mb = runtime.on_main(lambda: _whole_weights(built.job.model, best, folder, prepared.processor))
    model = inference.load_weights(task, weights, runtime)
    measured = scorer(prepared, model, runtime)
    validation = measured.run(
        prepared.rows["validation"], encoded=prepared.encoded["validation"], objective=built.job.objective
    )
    task.tune(validation.predictions, prepared.rows["validation"])
    runtime.on_main(lambda: _save_model(folder, weights, prepared))
    metrics: dict[str, Any] = {
        "best": {
            "step": best_step,
            "epoch": round(built.job.batches.epoch_at(best_step), 4),
            "metric": prepared.metric,
        },
        "validation": _scores(prepared, validation, "validation"),
    }
    metrics["best"]["value"] = metrics["validation"][prepared.metric]
    if "test" in prepared.rows:
        test = measured.run(prepared.rows["test"], encoded=prepared.encoded["test"], objective=built.job.objective)
        metrics["test"] = _scores(prepared, test, "test")
    metrics["baselines"] = report.baselines
    metrics["train"] = figures if adapter_mb is None else {**figures, "adapter_mb": adapter_mb}
    if runtime.is_main:
        write_json(folder.metrics, metrics)
        folder.set_status("finished", exit_code=EXIT_DONE, reason="", step=built.flow.step)
        shutil.rmtree(best, ignore_errors=True)
    runtime.barrier()
    return metrics


def _whole_weights(model: Any, best: Path, folder: RunFolder, processor: Any) -> tuple[Path, float | None]:
    """Folder of a whole model with the best weights, and the size of its adapter in MB if it has one.

    An adapter is saved as `adapter/`, and then merged into the model.
    """
    if not adapters.is_adapted(model):
        return best, None
    adapters.load(model, best)
    with replaced_folder(folder.adapter) as partial:
        adapters.export(model, partial)
        processor.save_pretrained(partial)
    merged = best / "merged"
    adapters.merge(model).save_pretrained(merged)
    return merged, round((folder.adapter / adapters.WEIGHTS).stat().st_size / 2**20, 3)


def _save_model(folder: RunFolder, weights: Path, prepared: Prepared) -> None:
    with replaced_folder(folder.model) as partial:
        shutil.copytree(weights, partial, dirs_exist_ok=True)
        prepared.processor.save_pretrained(partial)
        prepared.task.saved(partial, prepared.recipe.model.save_format)
        write_json(partial / TASK_FILE, {"task": prepared.task.options.name, "facts": prepared.task.facts()})


def _scores(prepared: Prepared, output: inference.Output, split: str) -> dict[str, Any]:
    scores = inference.metrics_with_interval(
        prepared.task, output.predictions, prepared.rows[split], metric=prepared.metric
    )
    return {"loss": output.loss, **scores}


def _training_figures(prepared: Prepared, built: Built, runtime: Runtime) -> dict[str, Any]:
    """How fast and how big the run was; seconds are those of training steps alone."""
    from nlp_finetune.models.summary import count_parameters

    plan, steps, seconds = built.job.batches, built.flow.step, built.stopwatch.seconds
    tokens = sum(int(plan.lengths[i]) for step in range(steps) for i in plan.global_batch(step))
    total, trainable = count_parameters(built.job.model)
    return {
        "samples_per_second": round(steps * plan.batch_size / seconds, 2) if seconds else None,
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "padding_fraction": round(plan.padding_fraction(steps), 4),
        "peak_memory_mb": round(max(runtime.gather(processes.peak_memory_mb(runtime.device))), 1),
        "seconds": round(seconds, 2),
        "steps": steps,
        "trainable_parameters": trainable,
        "total_parameters": total,
        "engine": prepared.recipe.train.engine,
        "precision": built.precision,
    }


def _stopped_message(folder: RunFolder, step: int, signal_name: str | None) -> str:
    return (
        f"stopped by {signal_name or 'another process'} after step {step}; the checkpoint is in "
        f"{folder.checkpoints}. The same command with output_dir={folder} goes on."
    )
