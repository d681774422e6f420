"""Several runs side by side: scores, whether they differ by more than chance, and what was done differently."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nlp_finetune.metrics.intervals import paired_bootstrap
from nlp_finetune.reports import charts
from nlp_finetune.reports.reading import RunData

LEVEL = 0.95
_EXAMPLES = 8
_MOST_CLASSES = 120
_NOT_COMPARED = ("output_dir", "demo", "name", "description")


@dataclass(frozen=True)
class Comparison:
    """A run against the first one, on the rows that both have predicted.

    `reason` says why there is nothing else where there is nothing. `difference` is the second score less
    the first, `low` and `high` its 95 % interval, `p` the probability of one as large by chance.
    """

    first: str
    second: str
    split: str | None = None
    score: str | None = None
    greater_is_better: bool = True
    rows_shared: int = 0
    rows_first: int = 0
    rows_second: int = 0
    score_first: float | None = None
    score_second: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    reason: str | None = None
    better_in: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = ()
    worse_in: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = ()

    @property
    def verdict(self) -> str:
        """In words: better, worse, or neither that these rows can show."""
        if self.reason or self.low is None or self.high is None:
            return self.reason or ""
        if self.low <= 0 <= self.high:
            return "no difference that these rows can show"
        return "better" if (self.low > 0) == self.greater_is_better else "worse"

    @property
    def note(self) -> str:
        """What the comparison is of."""
        if self.rows_shared == self.rows_first == self.rows_second:
            return f"all {self.rows_shared:,} {self.split} rows"
        return (
            f"different {self.split} data: {self.rows_shared:,} rows are in both "
            f"({self.rows_first:,} and {self.rows_second:,}), and only they are compared"
        )

    def as_json(self) -> dict[str, Any]:
        """Figures without the example rows."""
        figures = {k: v for k, v in asdict(self).items() if k not in ("better_in", "worse_in")}
        return {**figures, "verdict": self.verdict}


def compare(first: RunData, second: RunData) -> Comparison:
    """Test whether two runs differ on the rows that both have predicted, by a paired bootstrap."""
    names: dict[str, Any] = {"first": first.name, "second": second.name}
    lines = {split: [_predictions(run, split) for run in (first, second)] for split in ("test", "validation")}
    split = next((s for s, (a, b) in lines.items() if a and b), None)
    if split is None:
        lacking = [run.name for run in (first, second) if not any(_predictions(run, s) for s in lines)]
        why = f"no predictions of {' and '.join(lacking)}" if lacking else "no split that both have predicted"
        return Comparison(**names, reason=f"{why}: nothing to compare row by row")
    scores = [run.details.get(split, {}).get("row_score") for run in (first, second)]
    if not scores[0] or scores[0] != scores[1]:
        return Comparison(**names, split=split, reason="rows are scored differently: these are different tasks")
    a, b = lines[split]
    shared = sorted(set(a) & set(b), key=lambda key: a[key]["row"])
    figures: dict[str, Any] = {
        **names, "split": split, "score": scores[0]["name"], "greater_is_better": scores[0]["greater_is_better"],
        "rows_shared": len(shared), "rows_first": len(a), "rows_second": len(b),
    }  # fmt: skip
    values = np.array([[found[key]["score"] for key in shared] for found in (a, b)], dtype=float)
    weights = np.array([[found[key]["weight"] for key in shared] for found in (a, b)], dtype=float)
    if not shared or not np.isfinite(values).all() or (weights.sum(axis=1) <= 0).any():
        return Comparison(**figures, reason=f"different {split} data: no row that both have predicted can be scored")
    means = (values * weights).sum(axis=1) / weights.sum(axis=1)
    low, high, p = paired_bootstrap(values, weights, level=LEVEL)
    sign = 1 if scores[0]["greater_is_better"] else -1
    gain = sign * (values[1] - values[0])
    order = np.argsort(-gain, kind="stable")
    pairs = [(a[key], b[key]) for key in shared]
    return Comparison(
        **figures, score_first=float(means[0]), score_second=float(means[1]), difference=float(means[1] - means[0]),
        low=low, high=high, p=p,
        better_in=tuple(pairs[i] for i in order[:_EXAMPLES] if gain[i] > 0),
        worse_in=tuple(pairs[i] for i in order[::-1][:_EXAMPLES] if gain[i] < 0),
    )  # fmt: skip


def _predictions(run: RunData, split: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Scored lines of predictions/SPLIT.jsonl by key; the count tells repeated texts apart."""
    file = run.folder.predictions / f"{split}.jsonl"
    seen: Counter[str] = Counter()
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        content = json.loads(line)
        if content.get("score") is not None:
            found[content["key"], seen[content["key"]]] = content
            seen[content["key"]] += 1
    return found


def of_runs(runs: Sequence[RunData], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Everything that the page of several runs shows."""
    from markupsafe import Markup

    metric = next((run.metric for run in runs if run.metric), None)
    plots = [{**plot, "svg": Markup(plot["svg"])} for plot in _plots(runs, metric)]
    content = {
        "runs": [_row(run, metric) for run in runs],
        "comparisons": comparisons,
        "plots": plots,
        "classes": _classes(runs),
        "differences": differences([run.recipe for run in runs]),
    }
    names = {
        "runs": "Scores", "comparisons": "Significance", "plots": "Curves", "classes": "Classes",
        "differences": "Recipes",
    }  # fmt: skip
    return {
        "title": f"{len(runs)} runs compared",
        "metric": metric,
        "names": [run.name for run in runs],
        "sections": [(key, name) for key, name in names.items() if content[key]],
        **content,
    }


def _row(run: RunData, metric: str | None) -> dict[str, Any]:
    measured = run.metrics.get(run.split, {})
    rivals = run.metrics.get("baselines", {}).get(run.split, {})
    figures = run.metrics.get("train", {})
    return {
        "name": run.name, "split": run.split, "rows": measured.get("rows"), "value": measured.get(metric),
        "interval": measured.get(f"{metric}_ci95"),
        "rival": max((v[metric] for v in rivals.values() if metric in v), default=None),
        "state": run.status.get("state") or ("finished" if run.is_measured else "unknown"),
        "checkpoint": (run.recipe.get("model") or {}).get("checkpoint"),
        **{k: figures.get(k) for k in ("seconds", "samples_per_second", "peak_memory_mb", "trainable_parameters")},
    }  # fmt: skip


def _plots(runs: Sequence[RunData], metric: str | None) -> list[dict[str, Any]]:
    plots = []
    scored: dict[str, charts.Points] = {
        run.name: [(e["step"], e["validation"][metric]) for e in run.evaluations if metric in e["validation"]]
        for run in runs
    }
    losses: dict[str, charts.Points] = {
        run.name: [(line["step"], line["loss"]) for line in run.history if isinstance(line.get("loss"), int | float)]
        for run in runs
    }
    for title, name, series in ((f"Validation {metric}", "metric", scored), ("Training loss", "loss", losses)):
        drawn = {run: points for run, points in series.items() if points}
        if drawn:
            spoken = "; ".join(f"{run} ends at {points[-1][1]:.4f}" for run, points in drawn.items())
            svg = charts.lines(name, drawn, dotted=list(drawn) if name == "metric" else ())
            plots.append({"title": title, "note": "By optimizer step.", "svg": svg, "spoken": spoken})
    return plots


def _classes(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """F1 of each class in every run, those that differ most first."""
    tables = [{c["label"]: c["f1"] for c in run.details.get(run.split, {}).get("classes", [])} for run in runs]
    labels = [label for label in tables[0] if all(label in table for table in tables)]
    rows = [{"label": label, "values": [table[label] for table in tables]} for label in labels]
    rows = [{**row, "range": max(row["values"]) - min(row["values"])} for row in rows if None not in row["values"]]
    return sorted(rows, key=lambda row: -row["range"])[:_MOST_CLASSES]


def differences(recipes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Dotted keys whose values differ, with each run's value in short JSON."""
    flat = [_flat({k: v for k, v in recipe.items() if k not in _NOT_COMPARED}) for recipe in recipes]
    keys = sorted({key for one in flat for key in one})
    rows = [{"key": key, "values": [one.get(key, "") for one in flat]} for key in keys]
    return [row for row in rows if len(set(row["values"])) > 1]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        return {key: v for name, part in value.items() for key, v in _flat(part, f"{prefix}{name}.").items()}
    # Small numbers without a point are strings to YAML: quotes would show what means nothing.
    return {
        prefix.removesuffix("."): value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, default=str)
    }
