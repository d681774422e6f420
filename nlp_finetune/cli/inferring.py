"""The verbs of a finished run: evaluate, predict. torch is imported inside functions."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.cli import output
from nlp_finetune.errors import EXIT_DONE, InputError
from nlp_finetune.runtime import say, set_up_log

if TYPE_CHECKING:
    from datasets import Dataset

    from nlp_finetune.data.delimited import TextRows
    from nlp_finetune.inference import Model
    from nlp_finetune.runtime import Runtime
    from nlp_finetune.saved_runs import Run


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate`."""
    parser.add_argument("run", metavar="RUN", help="run folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--data", metavar="FILE", help="labelled file to evaluate on")
    which.add_argument("--split", metavar="NAME", help="split of the run's own data (default: test, else validation)")
    _add_reading_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def evaluate(arguments: argparse.Namespace) -> int:
    """Score a run on a labelled file or on a split of its own data."""
    set_up_log(quiet=arguments.quiet)
    from nlp_finetune import inference, saved_runs

    run = saved_runs.find(arguments.run, trust_remote_code=arguments.trust_remote_code)
    here, model = _load(run, arguments)
    rows, name = _evaluation_rows(run, model, here, arguments)
    predictions = model.run(rows).predictions
    scores = inference.metrics_with_interval(model.task, predictions, rows, metric=_metric(run, model))
    if here.is_main and arguments.json:
        behind = model.task.evidence(predictions, rows)
        shown_too = {part: behind[part] for part in ("classes", "confusion") if part in behind}
        print(json.dumps({"run": arguments.run, "data": name, "metrics": scores, **shown_too}, indent=2))
    elif here.is_main:
        metric = _metric(run, model)
        shown = [(metric, output.score_with_interval(scores, metric))]
        shown += [(k, f"{v:.4f}") for k, v in scores.items() if isinstance(v, float) and k != metric]
        output.line(f"{name}: {scores['rows']} rows")
        output.table(("metric", "value"), shown)
    return EXIT_DONE


def _metric(run: Run, model: Model) -> str:
    return model.task.metric if run.metric in (None, "auto") else str(run.metric)


def _evaluation_rows(run: Run, model: Model, here: Runtime, arguments: argparse.Namespace) -> tuple[Dataset, str]:
    if arguments.data is not None:
        data = _read(arguments.data, arguments, text_rows=model.task.text_rows, images=model.task.images)
        return model.task.inputs(data, labelled=True), str(arguments.data)
    from nlp_finetune.preparation import prepare
    from nlp_finetune.recipe import Augment
    from nlp_finetune.resuming import saved_recipe

    recipe = saved_recipe(run.folder)
    # A run that somebody else made does not decide what code runs here.
    model_section = recipe.model.model_copy(update={"trust_remote_code": run.trust_remote_code})
    # What changes training rows has no part in it, and its files may be gone.
    recipe = recipe.model_copy(update={"model": model_section, "augment": Augment()})
    prepared = prepare(recipe, here, tell=lambda _: None)
    split = arguments.split or ("test" if "test" in prepared.rows else "validation")
    if split not in prepared.rows:
        raise InputError(f"--split {split}: the run's data have {', '.join(prepared.rows)}.")
    return prepared.rows[split], split


def _add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--columns", metavar="A,B", help="column names of a file without a header")
    parser.add_argument("--delimiter", help="what separates columns: a character, tab or comma")
    parser.add_argument("--encoding", help="character encoding of the file")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that comes with the model (read it first)"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="rows in one forward pass (default 64)")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="number format of the computation: bf16 is faster where the processor has it, and rounds (default fp32)",
    )


def _read(path: str, arguments: argparse.Namespace, *, text_rows: TextRows = "line", images: bool = False) -> Dataset:
    from nlp_finetune.data import sources

    columns = arguments.columns.split(",") if arguments.columns else None
    rows, notes = sources.read_file(
        path,
        columns=columns,
        delimiter=arguments.delimiter,
        encoding=arguments.encoding,
        text_rows=text_rows,
        images=images,
    )
    for note in notes:
        say(note)
    return rows


def _load(run: Run, arguments: argparse.Namespace) -> tuple[Runtime, Model]:
    from nlp_finetune import joining, saved_runs

    if arguments.batch_size < 1:
        raise InputError(f"--batch-size {arguments.batch_size}: at least 1.")
    here = joining.start()
    return here, saved_runs.load(run, here, batch_size=arguments.batch_size, precision=arguments.precision)


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `predict`."""
    parser.add_argument("run", metavar="RUN", help="run folder")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", action="append", metavar="TEXT", help="a text; twice for a pair")
    what.add_argument("--image", action="append", metavar="FILE", help="an image; again for more of them")
    what.add_argument(
        "--input",
        metavar="FILE",
        help="file with a text column (csv, tsv, jsonl, parquet, txt, ...), or with paths of images; a folder of them",
    )
    parser.add_argument("--output", metavar="FILE", help="where to write: .csv, .tsv, .jsonl or .json")
    parser.add_argument("--json", action="store_true", help="print predictions as one JSON document")
    parser.add_argument("overrides", nargs="*", metavar="task.key=value", help="options of prediction, set anew")
    _add_reading_arguments(parser)


def predict(arguments: argparse.Namespace) -> int:
    """Predict for texts or for a file; rows that cannot be predicted are named."""
    set_up_log(quiet=arguments.quiet)
    from nlp_finetune import saved_runs
    from nlp_finetune.cli import files

    if arguments.output is not None:
        files.check_output(Path(arguments.output))
    found = saved_runs.find(arguments.run, trust_remote_code=arguments.trust_remote_code)
    run = _with_options(found, arguments.overrides)
    images = saved_runs.takes_images(run)
    if (arguments.text if images else arguments.image) is not None:
        raise InputError(f"--{'text' if images else 'image'}: this run takes {'images' if images else 'texts'}.")
    source = None if arguments.input is None else _read(arguments.input, arguments, images=images)
    here, model = _load(run, arguments)
    data = source
    if data is None:
        make = files.from_images if images else files.from_texts
        data = make(model.task, arguments.image if images else arguments.text)
    data, bad = files.without_bad_rows(model.task, data)
    rows = model.task.inputs(data, labelled=False)
    answers = model.answers(rows)
    if not here.is_main:
        return EXIT_DONE
    for row, problem in bad[:10]:
        output.warn(f"row {row} is left out: {problem}")
    if len(bad) > 10:
        output.warn(f"{len(bad) - 10} more rows are left out")
    _deliver(data, rows, answers, arguments)
    return EXIT_DONE


def _with_options(run: Run, overrides: list[str]) -> Run:
    """The run with options of its task set anew, of those that have nothing to do with training."""
    from nlp_finetune.recipe import load
    from nlp_finetune.tasks import base

    names = [f"task.{name}" for name in base.find(run.task_name).at_prediction]
    for text in overrides:
        if text.partition("=")[0] not in names:
            takes = f"predict can set {', '.join(names)}" if names else "predict can set no option of this task"
            raise InputError(f"{text}: {takes}; everything else was decided by training.")
    if not overrides:
        return run
    loaded = load(str(run.folder.recipe), overrides=overrides, task_options=base.options_of, task_names=base.names())
    return replace(run, task_options=loaded.recipe.task.model_dump())


def _deliver(data: Dataset, rows: Dataset, answers: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    from nlp_finetune.cli import files

    if arguments.output is not None:
        files.write(Path(arguments.output), data, answers)
        output.line(f"{len(answers)} predictions written to {arguments.output}")
    if arguments.json:
        print(json.dumps(answers, ensure_ascii=False, indent=2))
    elif arguments.output is None:
        for answer in answers:
            sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
