"""The page of a learning-rate range test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.reports import charts
from nlp_finetune.reports.page import render
from nlp_finetune.runs.folder import write_text

if TYPE_CHECKING:
    from nlp_finetune.range_test import RangeTest


def write_page(found: RangeTest, target: Path, *, name: str) -> None:
    """Write the page, whole or not at all. Raises `OSError` where the file cannot be written."""
    write_text(target, render("rates.html", content(found, name=name)))


def content(found: Any, *, name: str) -> dict[str, Any]:
    """Everything that the page shows: a `RangeTest` as plain values."""
    from markupsafe import Markup

    means = found.smoothed
    points = list(zip(found.rates, means, strict=False))
    raw = list(zip(found.rates, found.losses[: len(means)], strict=False))
    suggestion = found.suggestion
    at = None
    if suggestion is not None:
        at = min(points, key=lambda point: abs(point[0] / suggestion - 1))
    svg = charts.by_rate("rates", {"loss": raw, "smoothed": points}, best=at)
    return {
        "title": f"Learning rates of {name}",
        "suggestion": None if suggestion is None else f"{suggestion:.1e}",
        "recipe_rate": f"{found.recipe_rate:g}",
        "sections": [("rates", "Range test")],
        "note": f"{len(found.losses)} steps; {found.ended}.",
        "plot": {
            "title": "Loss by learning rate",
            "note": "Training loss before each step, and its running mean.",
            "svg": Markup(svg),
            "spoken": f"from {points[0][1]:.3f} at {points[0][0]:.1e} to {points[-1][1]:.3f} at {points[-1][0]:.1e}"
            if points
            else "nothing was measured",
        },
        "rows": [{"rate": f"{rate:.2e}", "loss": f"{loss:.4f}"} for rate, loss in charts.thinned(points)],
    }
