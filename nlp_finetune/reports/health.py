"""The part of a run's page about the health of training: gradients and updates by group of layers, what is wrong."""

from __future__ import annotations

import math
from typing import Any

from nlp_finetune.learning.diagnosis import diagnose
from nlp_finetune.reports import charts
from nlp_finetune.reports.reading import RunData

_HEAD = {
    "input_std": "spread (standard deviation) of what the head is given",
    "input_zeros": "share of zeros in what the head is given",
    "output_mean": "mean of what the head gives",
    "output_std": "spread of what the head gives",
    "output_max": "largest number the head gives",
}


def health(run: RunData) -> dict[str, Any] | None:
    """Plots, a table by group of layers, the head's activations, and findings; None where nothing was measured."""
    lines = [line for line in run.history if line.get("health", {}).get("gradients")]
    if not lines:
        return None
    last = lines[-1]["health"]
    names = list(dict.fromkeys(name for line in lines for name in line["health"]["gradients"]))
    head = [(lines[0]["health"].get("head") or {}, last.get("head") or {})]
    return {
        "findings": [
            {"kind": finding.kind, "step": finding.step, "message": finding.message}
            for finding in diagnose(run.history)
        ],
        "plots": [plot for plot in (_plot(lines, names, what) for what in ("gradients", "updates")) if plot],
        "step": lines[-1]["step"],
        "groups": [
            {"name": name, "gradient": _short(last["gradients"].get(name)), "update": _short(last["updates"].get(name))}
            for name in names
        ],
        "head": [
            {"what": what, "first": _short(first.get(key)), "last": _short(now.get(key))}
            for first, now in head
            for key, what in _HEAD.items()
            if key in now
        ],
    }


def _plot(lines: list[dict[str, Any]], names: list[str], what: str) -> dict[str, Any] | None:
    """One quantity over the steps, on a logarithmic scale, for at most as many groups as there are colours."""
    chosen = _spread(names, len(charts.SERIES))
    series: dict[str, charts.Points] = {}
    for name in chosen:
        points = [(line["step"], line["health"][what].get(name)) for line in lines]
        points = [(step, value) for step, value in points if value]
        if points:
            series[name] = points
    if not series:
        return None
    title, note = {
        "gradients": ("Gradient by group of layers", "Norm before clipping."),
        "updates": ("Update-to-weight ratio", "Size of one step over the size of the weights."),
    }[what]
    if len(chosen) < len(names):
        note += f" {len(chosen)} of {len(names)} groups."
    spoken = "; ".join(f"{name} {_short(points[0][1])} to {_short(points[-1][1])}" for name, points in series.items())
    svg = charts.lines(f"health-{what}", series, logarithmic=True)
    return {"title": title, "note": note, "svg": svg, "spoken": spoken}


def _spread(names: list[str], most: int) -> list[str]:
    """The first, the last, and evenly what is between."""
    if len(names) <= most:
        return names
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, int | float) and math.isfinite(value) else "–"  # noqa: RUF001
