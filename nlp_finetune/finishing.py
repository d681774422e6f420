"""The end of a run: the best weights become `model/`, are loaded back from disk, and are measured."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from nlp_finetune import check, inference, metering, saved_runs, scoring, souping
from nlp_finetune import runtime as processes
from nlp_finetune.build import Built
from nlp_finetune.errors import EXIT_DONE
from nlp_finetune.models import adapters
from nlp_finetune.preparation import Prepared
from nlp_finetune.reports import evidence
from nlp_finetune.runs import card, checkpoints, sealing
from nlp_finetune.runs.folder import TASK_FILE, RunFolder, disk_faults, replaced_folder, write_json
from nlp_finetune.runtime import Runtime
from nlp_finetune.stopping import StopRequest


def finish(
    prepared: Prepared,
    built: Built,
    folder: RunFolder,
    best_step: int,
    report: check.DataReport,
    runtime: Runtime,
    stop: StopRequest,
) -> dict[str, Any]:
    """Save the best weights as `model/`, load them back from disk, and measure those.

    Raises `Interrupted` where the run is asked to stop meanwhile; all of it can be done again.
    """
    task = prepared.task
    soup = souping.cook(prepared, built, folder, best_step, runtime) if prepared.recipe.average.name == "soup" else None
    best = checkpoints.best_folder(folder.checkpoints, best_step) if soup is None else soup.folder
    figures = _training_figures(prepared, built, runtime)
    weights, adapter_mb = runtime.on_main(lambda: _whole_weights(built.job.model, best, folder, prepared.processor))
    trust = prepared.recipe.model.trust_remote_code
    model = saved_runs.load_weights(task, weights, runtime, trust_remote_code=trust)
    measured = scoring.scorer(prepared, model, runtime, stop)
    outputs = {"validation": _run(measured, prepared, built, "validation")}
    task.tune(outputs["validation"].predictions, prepared.rows["validation"])
    runtime.on_main(lambda: _save_model(folder, weights, prepared))
    metrics: dict[str, Any] = {
        "best": {
            "step": best_step,
            "epoch": round(built.job.batches.epoch_at(best_step), 4),
            "metric": prepared.metric,
        },
        "validation": _scores(prepared, outputs["validation"], "validation"),
    }
    metrics["best"]["value"] = metrics["validation"][prepared.metric]
    if "test" in prepared.rows:
        outputs["test"] = _run(measured, prepared, built, "test")
        metrics["test"] = _scores(prepared, outputs["test"], "test")
    if soup is not None:
        metrics["soup"] = soup.as_json()
    metrics["baselines"] = report.baselines
    metrics["train"] = figures if adapter_mb is None else {**figures, "adapter_mb": adapter_mb}
    if built.cache is not None:
        metrics["train"]["frozen_cache"] = built.cache.figures()
    evidence.record(folder, prepared, measured, outputs, trained_rows=built.flow.step * built.job.batches.batch_size)
    runtime.on_main(lambda: _record(folder, metrics, built.flow.step))
    return metrics


def _record(folder: RunFolder, metrics: dict[str, Any], step: int) -> None:
    with disk_faults("the scores", folder.metrics):
        write_json(folder.metrics, metrics)
        card.write(folder)
        folder.set_status("finished", exit_code=EXIT_DONE, reason="", step=step)
    checkpoints.delete_bests(folder.checkpoints)


def _run(measured: inference.Model, prepared: Prepared, built: Built, split: str) -> inference.Output:
    return measured.run(prepared.rows[split], encoded=prepared.encoded[split], objective=built.objective)


def _whole_weights(model: Any, best: Path, folder: RunFolder, processor: Any) -> tuple[Path, float | None]:
    """Folder of a whole model with the best weights, and the size of its adapter in MB if it has one.

    An adapter is saved as `adapter/`, and then merged into the model.
    """
    if not adapters.is_adapted(model):
        return best, None
    adapters.load(model, best)
    with disk_faults("the adapter", folder.adapter), replaced_folder(folder.adapter) as partial:
        adapters.export(model, partial)
        processor.save_pretrained(partial)
    merged = best / "merged"
    with disk_faults("the merged model", merged):
        adapters.merge(model).save_pretrained(merged)
    return merged, round((folder.adapter / adapters.WEIGHTS).stat().st_size / 2**20, 3)


def _save_model(folder: RunFolder, weights: Path, prepared: Prepared) -> None:
    with disk_faults("the model", folder.model), replaced_folder(folder.model) as partial:
        shutil.copytree(weights, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns(sealing.MANIFEST))
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
    peaks = [peak for peak in runtime.gather(metering.peak(runtime, built.precision)) if peak is not None]
    total, trainable = count_parameters(built.job.model)
    return {
        "samples_per_second": round(steps * plan.batch_size / seconds, 2) if seconds else None,
        **metering.throughput(
            plan, steps=steps, seconds=seconds, has_tokens=not prepared.task.images, work=built.work, peaks=peaks
        ),
        "padding_fraction": 0.0 if built.packed else round(plan.padding_fraction(steps), 4),
        "peak_memory_mb": round(max(runtime.gather(processes.peak_memory_mb(runtime.device))), 1),
        "seconds": round(seconds, 2),
        "time_split": {part: round(spent, 3) for part, spent in built.stopwatch.split.items()},
        "steps": steps,
        "trainable_parameters": trainable,
        "trainable_share": round(trainable / total, 6),
        "total_parameters": total,
        "engine": prepared.recipe.train.engine,
        "precision": built.precision,
        "packing": built.packed,
    }
