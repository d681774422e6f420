"""What each section of a run's page holds: plain values for the template, None where there is no evidence."""

from __future__ import annotations

from typing import Any

from nlp_finetune.reports import charts
from nlp_finetune.reports.health import health
from nlp_finetune.reports.inputs import data, setup
from nlp_finetune.reports.judged import evidence, mistakes
from nlp_finetune.reports.reading import RunData

_STATES = {
    "finished": ("good", "finished"),
    "running": ("busy", "running"),
    "stopped": ("warn", "stopped, can go on"),
    "failed": ("bad", "failed"),
}
_PARTS = {
    "data": ("fourth", "waiting for batches"),
    "forward": ("accent", "the model and its loss, moving batches to the device"),
    "backward": ("third", "gradients and their clipping"),
    "optimizer": ("good", "the step of the weights, and of the learning rate"),
    "evaluation": ("second", "the validation rows, while training"),
    "saving": ("fifth", "best weights, checkpoints, this page"),
}


def of_run(run: RunData) -> dict[str, Any]:
    """Everything that the page of a run shows."""
    from markupsafe import Markup

    content: dict[str, Any] = {
        "scores": scores(run),
        "seeds": seeds(run),
        "stages": run.metrics.get("stages"),
        "training": training(run),
        "evidence": evidence(run.details.get(run.split, {})),
        "mistakes": mistakes(run.details, run.split),
        "data": data(run.check),
        "setup": setup(run),
    }
    measured = (content["training"] or {}).get("health")
    for part in (content["training"], content["evidence"], measured):
        for plot in (part or {}).get("plots", []):
            plot["svg"] = Markup(plot["svg"])
    names = {
        "scores": "Scores", "seeds": "Seeds", "stages": "Stages", "training": "Training", "evidence": "Right and wrong",
        "mistakes": "Mistakes", "data": "Data", "setup": "Setup",
    }  # fmt: skip
    return {
        "title": run.name,
        "subtitle": _subtitle(run),
        "state": _state(run),
        "tiles": _tiles(run),
        "split": run.split,
        "sections": [(key, name) for key, name in names.items() if content[key]],
        **content,
    }


def _subtitle(run: RunData) -> str:
    task, model = run.recipe.get("task") or {}, run.recipe.get("model") or {}
    source = (run.recipe.get("data") or {}).get("source") or (run.recipe.get("data") or {}).get("train")
    words = [task.get("name"), model.get("checkpoint"), source]
    return " · ".join(str(word) for word in words if word)


def _state(run: RunData) -> dict[str, Any]:
    # A pushed run has no status: what is pushed is finished.
    state = run.status.get("state") or ("finished" if run.is_measured else "running")
    kind, text = _STATES.get(state, ("warn", state))
    if state == "running" and run.progress.get("step"):
        text = f"running: step {run.progress['step']:,} of {run.progress.get('steps', 0):,}"
    return {"kind": kind, "text": text, "reason": run.status.get("reason") if state in ("failed", "stopped") else None}


def _tiles(run: RunData) -> list[dict[str, Any]]:
    from nlp_finetune.reports.page import duration, score, whole

    tiles: list[dict[str, Any]] = []
    name, figures = run.metric, run.metrics.get("train", {})
    if run.is_measured and name:
        found = run.metrics[run.split]
        interval = found.get(f"{name}_ci95")
        note = f"95 %: {score(interval[0], 3)} to {score(interval[1], 3)}, " if interval else ""
        tiles.append(
            {
                "main": True,
                "name": f"{run.split} {name}",
                "value": score(found.get(name)),
                "note": f"{note}{whole(found.get('rows'))} rows",
            }
        )
        tiles += _rival_tile(run, name)
    elif run.best is not None:
        tiles.append(
            {"main": True, "name": f"best validation {name} so far", "value": score(run.best[1]),
             "note": f"step {run.best[0]:,}"}
        )  # fmt: skip
    if figures:
        trained, total = figures.get("trainable_parameters"), figures.get("total_parameters")
        share = f"{trained / total:.1%} of {total / 1e6:,.1f} M" if trained and total else ""
        tiles += [
            {"name": "training", "value": duration(figures.get("seconds")),
             "note": f"{whole(figures.get('steps'))} steps, {figures.get('samples_per_second')} rows/s{_use(figures)}"},
            {"name": "trained", "value": f"{trained / 1e6:,.1f} M" if trained else "–", "note": f"{share} parameters"},  # noqa: RUF001
            {"name": "peak memory", "value": f"{(figures.get('peak_memory_mb') or 0) / 1024:.1f} GB",
             "note": f"{figures.get('precision')}, engine {figures.get('engine')}"},
        ]  # fmt: skip
    return tiles


def _use(figures: dict[str, Any]) -> str:
    share = figures.get("model_flops_utilization")
    return "" if share is None else f", {share:.1%} of the peak of its GPUs"


def _rival_tile(run: RunData, name: str) -> list[dict[str, Any]]:
    from nlp_finetune.reports.page import score

    rivals = run.metrics.get("baselines", {}).get(run.split, {})
    found = {rival: values[name] for rival, values in rivals.items() if name in values}
    if not found:
        return []
    lower = run.progress.get("greater_is_better") is False
    best = (min if lower else max)(found, key=lambda rival: found[rival])
    return [{"name": "best simple rival", "value": score(found[best]), "note": best}]


def scores(run: RunData) -> dict[str, Any] | None:
    """Metrics by split, beside those of simple rivals; those of single classes stand elsewhere."""
    if not run.is_measured:
        return None
    splits = [name for name in ("validation", "test") if name in run.metrics]
    main = run.metric
    classes = {c["label"] for c in run.details.get(run.split, {}).get("classes", [])}
    names = [
        name
        for name, value in run.metrics[run.split].items()
        if isinstance(value, float) and not any(name.endswith(f"_{label}") for label in classes)
    ]
    names.sort(key=lambda name: (name != main, name == "loss"))
    rivals = run.metrics.get("baselines", {}).get(run.split, {})
    table = [
        {
            "name": name,
            "main": name == main,
            "cells": [
                {"value": run.metrics[s].get(name), "interval": run.metrics[s].get(f"{name}_ci95")} for s in splits
            ],
            "rivals": [rival.get(name) for rival in rivals.values()],
        }
        for name in names
    ]
    best = run.metrics["best"]
    note = f"The weights are those of step {best.get('step')} (epoch {best.get('epoch')}), the best on validation."
    if "test" not in run.metrics:
        note += " There was no test data: these rows also chose the weights, so the scores flatter them."
    rows = {s: run.metrics[s].get("rows") for s in splits}
    return {"splits": splits, "rows": rows, "table": table, "rivals": list(rivals), "note": note}


def seeds(run: RunData) -> dict[str, Any] | None:
    """The spread of every score over the seeds or folds of a repeated run, the metric that picks the best first."""
    kind = "folds" if "folds" in run.metrics else "seeds"
    found = run.metrics.get(kind) or {}
    if not found.get(run.split):
        return None
    names = [row["name"] for row in (scores(run) or {}).get("table", []) if row["name"] in found[run.split]]
    return {
        "word": kind.removesuffix("s"),
        "seeds": found.get(kind, []),
        "best": found.get("best"),
        "rows": [{"name": name, "main": name == run.metric, **found[run.split][name]} for name in names],
    }


def training(run: RunData) -> dict[str, Any] | None:
    """Curves, evaluations, where the time went and what trained when."""
    if not run.history and not run.progress:
        return None
    columns = list(dict.fromkeys(k for line in run.evaluations for k, v in line["validation"].items() if _is_number(v)))
    classes = {c["label"] for c in run.details.get("validation", {}).get("classes", [])}
    columns = [name for name in columns if not any(name.endswith(f"_{label}") for label in classes)][:8]
    best_step = run.best[0] if run.best else None
    return {
        "note": _training_note(run),
        "plots": _curves(run),
        "metric": run.metric,
        "columns": columns,
        "evaluations": [
            {"step": e["step"], "epoch": e.get("epoch"), "scores": e["validation"], "best": e["step"] == best_step}
            for e in charts.thinned(run.evaluations)
        ],
        "time": _time(run),
        "trained": _trained(run),
        "health": health(run),
    }


def _training_note(run: RunData) -> str:
    figures = run.metrics.get("train", {})
    if figures:
        padding = figures.get("padding_fraction")
        pad = f" {padding:.1%} of the tokens were padding." if isinstance(padding, float) else ""
        return f"{figures.get('steps'):,} optimizer steps.{pad}"
    steps = run.progress.get("steps")
    return f"Of {steps:,} planned optimizer steps; written anew at each evaluation." if steps else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _column(lines: list[dict[str, Any]], name: str) -> charts.Points:
    return [(line["step"], line[name]) for line in lines if _is_number(line.get(name))]


def _curves(run: RunData) -> list[dict[str, Any]]:
    logged = [line for line in run.history if "loss" in line]
    evaluated = [{"step": e["step"], **e["validation"]} for e in run.evaluations]
    losses = {"training": _column(logged, "loss"), "validation": _column(evaluated, "loss")}
    losses = {name: points for name, points in losses.items() if points}
    plots = []
    if losses:
        spoken = "; ".join(f"{name} from {p[0][1]:.3f} to {p[-1][1]:.3f}" for name, p in losses.items())
        svg = charts.lines("loss", losses, dotted=("validation",))
        plots.append({"title": "Loss", "note": "Mean over the items of each step.", "svg": svg, "spoken": spoken})
    metric = run.metric
    if metric and metric != "loss" and (points := _column(evaluated, metric)):
        best = run.best
        spoken = f"from {points[0][1]:.4f} to {points[-1][1]:.4f}"
        if best:
            spoken += f", best {best[1]:.4f} at step {best[0]}"
        svg = charts.lines("metric", {metric: points}, best=best, dotted=(metric,))
        note = "On the validation rows; the best is circled."
        plots.append({"title": f"Validation {metric}", "note": note, "svg": svg, "spoken": spoken})
    for name, title, note in (
        ("learning_rate", "Learning rate", "Of the first group of parameters."),
        ("grad_norm", "Gradient norm", "Before clipping."),
    ):
        if points := _column(logged, name):
            spoken = f"from {points[0][1]:.3g} to {points[-1][1]:.3g}, at most {max(v for _, v in points):.3g}"
            svg = charts.lines(name, {title.lower(): points})
            plots.append({"title": title, "note": note, "svg": svg, "spoken": spoken})
    return plots


def _time(run: RunData) -> dict[str, Any] | None:
    split = run.metrics.get("train", {}).get("time_split") or run.progress.get("time_split") or {}
    total = sum(split.values())
    if not total:
        return None
    parts = [
        {"name": name, "seconds": split[name], "share": split[name] / total, "colour": colour, "what": what}
        for name, (colour, what) in _PARTS.items()
        if name in split
    ]
    return {"parts": parts, "note": "Measured in the run itself, from the first to the last step."}


def _trained(run: RunData) -> dict[str, Any] | None:
    changes, steps = run.progress.get("trained") or [], run.progress.get("steps") or 0
    if not changes or not steps:
        return None
    until = run.status.get("step") or run.progress.get("step") or steps
    names = list(dict.fromkeys(group["name"] for change in changes for group in change["groups"]))
    sizes = {g["name"]: g["parameters"] for change in changes for g in change["groups"]}
    rows = []
    for name in names:
        found: list[list[int]] = []
        for change, following in zip(changes, [*changes[1:], {"step": until}], strict=True):
            share = next((g["trainable"] for g in change["groups"] if g["name"] == name), 0)
            start, end = change["step"], max(following["step"], change["step"])
            if share and found and found[-1][1] == start:
                found[-1][1] = end
            elif share:
                found.append([start, end])
        spoken = ", ".join(f"{start:,} to {end:,}" for start, end in found) or "never: frozen"
        spans = [(start / steps, (end - start) / steps) for start, end in found]
        rows.append({"name": name, "parameters": sizes[name], "spoken": spoken, "spans": spans})
    if len(changes) == 1 and all(row["spans"] for row in rows):
        return {"rows": [], "steps": steps, "note": f"All {len(rows)} parts of the model, in every step."}
    return {"rows": rows, "steps": f"{steps:,}", "note": "A part counts as trained where any of its parameters is."}
