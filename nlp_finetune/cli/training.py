"""The verbs of training: train, check. torch is imported inside functions."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.cli import output
from nlp_finetune.cli.recipes import add_recipe_arguments, load_recipe
from nlp_finetune.errors import EXIT_DONE, InputError
from nlp_finetune.runtime import program, say, set_up_log
from nlp_finetune.stopping import stop_request

if TYPE_CHECKING:
    from nlp_finetune.job import Result
    from nlp_finetune.recipe import Recipe


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train`."""
    add_check_arguments(parser)
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="most a process waits for another in training (1800)"
    )


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `check`."""
    add_recipe_arguments(parser)
    parser.add_argument("--strict", action="store_true", help="treat warnings about the data as errors")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.add_argument(
        "--preview",
        metavar="FILE.html",
        help="write a page with training rows before and after augmentation",
    )


def train(arguments: argparse.Namespace) -> int:
    """Fine-tune; print the scores, the run folder and what to do next."""
    recipe = _begin(arguments)
    if arguments.timeout is not None and arguments.timeout <= 0:
        raise InputError(f"--timeout {arguments.timeout:g}: more than 0 seconds.")
    with stop_request(recipe) as stop:
        from nlp_finetune.repeat import fit

        result = fit(recipe, strict=arguments.strict, timeout_s=arguments.timeout, stop=stop)
    if _is_main_process():
        if arguments.json:
            print(json.dumps({"output_dir": result.output_dir, **result.metrics}, indent=2))
        _show_result(result, aside=arguments.json)
    return EXIT_DONE


def _begin(arguments: argparse.Namespace) -> Recipe:
    """Set up the log, load the recipe and say what overrides cleared."""
    set_up_log(quiet=arguments.quiet)
    loaded = load_recipe(arguments)
    for note in loaded.notes:
        say(note)
    return loaded.recipe


def _is_main_process() -> bool:
    from accelerate import PartialState

    return bool(PartialState().is_main_process) if PartialState._shared_state else True


def _show_result(result: Result, *, aside: bool) -> None:
    metrics = result.metrics
    name = metrics["best"]["metric"]
    split = "test" if "test" in metrics else "validation"
    scores = metrics[split]
    rows = [(f"{split} {name}", output.score_with_interval(scores, name), f"{scores['rows']} rows")]
    rows += [
        (f"{split} {other}", f"{value:.4f}", "")
        for other, value in scores.items()
        if isinstance(value, float) and other not in (name, "loss")
    ]
    for kind, one in (("seeds", "seed"), ("folds", "fold")):
        if kind in metrics:
            rows.insert(1, _spread_row(metrics[kind], kind, one, split, name))
    if "imbalance" in metrics:
        rows.append(("loss", metrics["imbalance"]["best"], metrics["imbalance"]["why"]))
    for baseline, values in metrics["baselines"].get(split, {}).items():
        if name in values:
            rows.append((f"baseline {baseline}", f"{values[name]:.4f}", f"{name} of a simple rival"))
    figures = metrics["train"]
    speed = f"{figures['samples_per_second']} rows/s, {figures['padding_fraction']:.1%} padding"
    if "model_flops_utilization" in figures:
        speed += f", {figures['model_flops_utilization']:.1%} of the GPU's peak"
    rows.append(("training time", f"{figures['seconds']:.0f} s", f"{figures['steps']} steps, {speed}"))
    best = metrics["best"]
    rows.append(("best checkpoint", f"step {best['step']}", f"epoch {best['epoch']:g}, by validation {name}"))
    output.table(("", "value", ""), rows, aside=aside)
    if "stages" in metrics:
        _show_stages(metrics["stages"], aside=aside)
    done = "already finished, nothing to do" if result.already_finished else "finished"
    start, folder = program(), shlex.quote(result.output_dir)
    example = output.example_arguments(result.output_dir)
    closing = [
        f"\n{done}: {result.output_dir}\n\nNext:",
        f"  {start} predict {folder} {example}",
        f"  {start} predict {folder} --input FILE.csv --output predictions.csv",
        f"  {start} evaluate {folder} --data FILE.csv",
    ]
    output.line("\n".join(closing), aside=aside)


def _spread_row(parts: dict[str, Any], kind: str, one: str, split: str, name: str) -> tuple[str, str, str]:
    spread = parts[split][name]
    value = f"{spread['mean']:.4f} +- {spread['std']:.4f} ({spread['min']:.4f} to {spread['max']:.4f})"
    return (
        f"mean of {len(parts[kind])} {kind}",
        value,
        f"{split} {name}; the scores above and below: {one} {parts['best']}",
    )


def _show_stages(stages: dict[str, Any], *, aside: bool) -> None:
    """The curve of `freeze.until`: layers trained -> score, time, parameters."""
    rows = [
        (
            f"{row['stage']}{' (kept)' if row['stage'] == stages['best'] else ''}",
            ", ".join(row["added"]),
            f"{row['score']:.4f}",
            f"{row['test_score']:.4f}" if "test_score" in row else "",
            f"{row['parameters']:,}",
            f"{row['seconds']:.1f}",
        )
        for row in stages["curve"]
    ]
    name = stages["metric"]
    output.table(("stage", "trains too", name, f"test {name}", "parameters", "seconds"), rows, aside=aside)
    output.line(f"target {stages['target']:g}; {stages['ended']}", aside=aside)


def check(arguments: argparse.Namespace) -> int:
    """Say what training would do and what is wrong with the data; train nothing."""
    recipe = _begin(arguments)
    from nlp_finetune import joining
    from nlp_finetune.check import data_report
    from nlp_finetune.planning import plan_report
    from nlp_finetune.preparation import prepare

    preview = None if arguments.preview is None else _preview_file(arguments.preview, recipe)
    here = joining.start(threads=recipe.train.threads)
    prepared = prepare(recipe, here)
    if preview is not None:
        from nlp_finetune.reports.preview import write_preview

        write_preview(prepared, preview)
        output.line(f"training rows before and after augmentation: {preview}", aside=arguments.json)
    report = data_report(prepared, strict=arguments.strict)
    plan = plan_report(prepared, here)
    if arguments.json:
        print(json.dumps({"data": report.as_json(), "plan": plan.as_json()}, indent=2, ensure_ascii=False))
    else:
        output.sections([*report.sections(), *plan.sections()])
    return EXIT_DONE


def _preview_file(given: str, recipe: Recipe) -> Path:
    """Where the page of `check --preview` goes; refused before anything is computed."""
    path = Path(given)
    if not (recipe.augment.text or recipe.augment.images):
        raise InputError("--preview: this recipe changes no rows; set augment.delete=0.1 or another way.")
    if path.suffix not in (".html", ".htm"):
        raise InputError(f"--preview {path}: the name must end in .html.")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"--preview {path}: {'this is a folder' if path.is_dir() else f'no folder {path.parent}'}.")
    return path
