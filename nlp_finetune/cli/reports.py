"""The verb that makes pages of runs: report."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.cli import output
from nlp_finetune.errors import EXIT_DONE, InputError
from nlp_finetune.runtime import say, set_up_log

if TYPE_CHECKING:
    from nlp_finetune.reports.reading import RunData

_COMPARISON = "comparison.html"


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `report`."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or the Hub id of a pushed run")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=f"the page to write (default: report.html in the run; {_COMPARISON} for several)",
    )
    parser.add_argument("--json", action="store_true", help="print scores and comparisons as JSON")


def report(arguments: argparse.Namespace) -> int:
    """Write the page of a run anew, or one that compares several runs."""
    set_up_log(quiet=arguments.quiet)
    if len(set(arguments.runs)) < len(arguments.runs):
        raise InputError("report: a run is named twice.")
    target = None if arguments.output is None else _target(arguments.output)
    runs = [_read(run) for run in arguments.runs]
    return _one(runs[0], arguments, target) if len(runs) == 1 else _several(runs, arguments, target)


def _target(path: str) -> Path:
    target = Path(path)
    if target.is_dir():
        raise InputError(f"--output {path}: is a folder; give the name of a file in it.")
    if not target.absolute().parent.is_dir():
        raise InputError(f"--output {path}: there is no folder {target.parent}.")
    return target


def _read(run: str) -> RunData:
    from nlp_finetune.reports.reading import read
    from nlp_finetune.runs.folder import RunFolder
    from nlp_finetune.runs.pulling import locate

    folder = RunFolder(Path(run).expanduser())
    if folder.recipe.is_file():  # a run that has not finished has a page too
        return read(folder)
    return read(locate(run, say=say).folder, name=run.partition("@")[0].rpartition("/")[2])


def _one(run: RunData, arguments: argparse.Namespace, target: Path | None) -> int:
    from nlp_finetune.reports.page import write_report

    if target is None:
        is_local = Path(arguments.runs[0]).expanduser().exists()
        # What is fetched from the Hub is a cache that nothing else may change.
        target = run.folder.report if is_local else Path(f"{run.name}-report.html")
    _written(target, lambda: write_report(run.folder, target, name=run.name))
    if arguments.json:
        _print({"run": arguments.runs[0], "report": str(target), **_figures(run)})
    else:
        output.line(f"written: {target}")
    return EXIT_DONE


def _several(runs: list[RunData], arguments: argparse.Namespace, target: Path | None) -> int:
    from dataclasses import replace

    from nlp_finetune.reports.comparing import compare
    from nlp_finetune.reports.page import write_comparison

    counts = Counter(run.name for run in runs)
    runs = [
        replace(run, name=given) if counts[run.name] > 1 else run
        for run, given in zip(runs, arguments.runs, strict=True)
    ]
    comparisons = [compare(runs[0], other) for other in runs[1:]]
    target = target or Path(_COMPARISON)
    _written(target, lambda: write_comparison(runs, comparisons, target))
    if arguments.json:
        figures = [{"run": given, "name": r.name, **_figures(r)} for given, r in zip(arguments.runs, runs, strict=True)]
        _print({"report": str(target), "runs": figures, "comparisons": [c.as_json() for c in comparisons]})
        return EXIT_DONE
    metric = next((run.metric for run in runs if run.metric), "score")
    rows = []
    for run in runs:
        scores = run.metrics.get(run.split, {})
        shown = output.score_with_interval(scores, metric) if metric in scores else "not measured"
        rows.append((run.name, shown, f"{scores.get('rows', 0)} {run.split} rows"))
    output.table(("run", metric, ""), rows)
    for c in comparisons:
        output.line(f"\n{c.second} against {c.first}: {c.verdict}")
        if c.reason is None:
            output.line(
                f"  {c.score} {c.score_first:.4f} -> {c.score_second:.4f}, difference {c.difference:+.4f} "
                f"(95 % {c.low:+.4f} to {c.high:+.4f}), p {c.p:.4f}; {c.note}"
            )
    output.line(f"\nwritten: {target}")
    return EXIT_DONE


def _figures(run: RunData) -> dict[str, Any]:
    return {
        "state": run.status.get("state") or ("finished" if run.is_measured else None),
        "metric": run.metric,
        "split": run.split if run.is_measured else None,
        "scores": run.metrics.get(run.split),
        "best": run.metrics.get("best"),
    }


def _written(target: Path, write: Any) -> None:
    try:
        write()
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}). Set --output FILE.") from error


def _print(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))
