"""What was measured, as tables and sentences of a card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nlp_finetune.runs.card.escaping import Markdown, code, escape, folded, metric, table
from nlp_finetune.runs.card.facts import SPLITS, Facts

_MOST_CONFUSIONS = 5
_SHOWN_CLASSES, _MOST_CLASSES = 25, 200
_UNRELIABLE = 0.1
"""Expected calibration error from which on confidence is not to be taken as a probability."""


def number(value: Any) -> str:
    """A score with four digits; nothing for what is no number."""
    return f"{value:.4f}" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{100 * share:.1f} %"


def headline(facts: Facts) -> Markdown:
    """The main score, its interval, its rows, and what simple rivals reach."""
    split, name = facts.split, facts.metric
    scores: Mapping[str, Any] = facts.metrics.get(split or "") or {}
    if split is None or name is None or number(scores.get(name)) == "":
        return Markdown("")
    low_high = scores.get(f"{name}_ci95")
    interval = f" (95 % interval {number(low_high[0])} to {number(low_high[1])})" if low_high else ""
    rivals = [
        f"{escape(rival)} {number(found.get(name))}"
        for rival, found in _rivals(facts, split).items()
        if number(found.get(name))
    ]
    beside = f" Simple rivals on the same rows: {', '.join(rivals)}." if rivals else ""
    rows = f" on {scores['rows']:,} {split} rows" if "rows" in scores else f" on the {split} rows"
    return Markdown(f"**{metric(name)} {number(scores[name])}**{interval}{rows}.{beside}")


def _rivals(facts: Facts, split: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = (facts.metrics.get("baselines") or {}).get(split) or {}
    return found


def scores(facts: Facts) -> Markdown:
    """All scores of all splits, each rival's in the row below the model's."""
    names = list(dict.fromkeys(name for split in SPLITS for name, _ in facts.scores(split)))
    rows: list[list[object]] = []
    for split in SPLITS:
        found = dict(facts.scores(split))
        if not found:
            continue
        intervals = facts.metrics[split]
        shown = [f"{split} ({intervals['rows']:,} rows)" if "rows" in intervals else split, Markdown("**this model**")]
        rows.append([*shown, *(_with_interval(found.get(name), intervals.get(f"{name}_ci95")) for name in names)])
        for rival, values in _rivals(facts, split).items():
            rows.append([split, rival, *(number(values.get(name)) for name in names)])
    return table(["split", "", *(metric(name) for name in names)], rows)


def _with_interval(value: float | None, low_high: Any) -> Markdown:
    text = number(value)
    return Markdown(f"**{text}** ({number(low_high[0])} to {number(low_high[1])})" if text and low_high else text)


def detail(facts: Facts, kind: str) -> Any:
    """Evidence of one kind, of the split that is told first; None where there is none."""
    return (facts.details.get(facts.split or "") or {}).get(kind)


def classes(facts: Facts) -> Markdown:
    """Precision, recall and F1 of each class."""
    rows = [
        (one["label"], number(one["precision"]), number(one["recall"]), number(one["f1"]), f"{one['rows']:,}")
        for one in (detail(facts, "classes") or [])[:_MOST_CLASSES]
    ]
    return _long(table(("label", "precision", "recall", "F1", "rows"), rows), len(rows))


def confusions(facts: Facts) -> list[Markdown]:
    """The classes that are taken for one another most often."""
    found = detail(facts, "confusion")
    if not found:
        return []
    names, matrix = found["labels"], found["matrix"]
    wrong = [
        (count, sum(row), names[i], names[j])
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    most = sorted(wrong, key=lambda one: -one[0])[:_MOST_CONFUSIONS]
    return [
        Markdown(f"{count:,} of {rows:,} rows of {escape(true)} are taken for {escape(taken)}")
        for count, rows, true, taken in most
    ]


def calibration(facts: Facts) -> Markdown:
    """How far the model's confidence can be believed, in a sentence."""
    found = detail(facts, "calibration")
    if not found or not number(found.get("ece")):
        return Markdown("")
    advice = (
        "do not read it as a probability" if found["ece"] >= _UNRELIABLE else "it can be read as a probability, roughly"
    )
    return Markdown(
        f"Expected calibration error {number(found['ece'])}: on average the confidence is "
        f"{percent(found['ece'])} away from how often the model is right; {advice}."
    )


def reliability(facts: Facts) -> Markdown:
    """Confidence beside accuracy, bin by bin."""
    found = detail(facts, "calibration") or {}
    rows = [
        (
            f"{one['low']:.1f} to {one['high']:.1f}",
            f"{one['rows']:,}",
            number(one["confidence"]),
            number(one["accuracy"]),
        )
        for one in found.get("bins") or []
    ]
    return table(("confidence", "decisions", "mean confidence", "share right"), rows)


def by_length(facts: Facts) -> Markdown:
    """Scores by the length of the input."""
    found = detail(facts, "by_length") or []
    names = [name for name in (found[0] if found else {}) if name not in ("low", "high", "rows")]
    rows = [
        (f"{one['low']} to {one['high']}", f"{one['rows']:,}", *(number(one.get(name)) for name in names))
        for one in found
    ]
    return table(("tokens", "rows", *(metric(name) for name in names)), rows)


def labels(facts: Facts) -> Markdown:
    """The classes, how many rows of each split have them, and an example of each."""
    counts = facts.check.get("labels") or {}
    # What identifies an image is no text that shows anything.
    examples = {} if facts.pipeline == "image-classification" else facts.check.get("examples") or {}
    names = facts.labels if facts.problem != "regression" else []
    known = names if not counts.get("train") or set(names) >= set(counts["train"]) else list(counts["train"])
    rows = [
        (name, *(f"{counts[split].get(name, 0):,}" for split in counts), examples.get(name))
        for name in known[:_MOST_CLASSES]
    ]
    return _long(table(("label", *(f"{split} rows" for split in counts), "example"), rows), len(rows))


def _long(shown: Markdown, classes: int) -> Markdown:
    """A table, folded where it has many rows."""
    return folded(shown, f"{classes} classes") if classes > _SHOWN_CLASSES else shown


def robustness(facts: Facts) -> Markdown:
    """Scores on changed inputs, where they were measured."""
    found = facts.metrics.get("robustness") or {}
    rows = [(code(name), number(value)) for name, value in found.items() if number(value)]
    return table(("changed inputs", metric(facts.metric or "score")), rows)


def weak_classes(facts: Facts) -> list[str]:
    """Classes of which the model finds less than half."""
    return [str(one["label"]) for one in detail(facts, "classes") or [] if one["rows"] and one["recall"] < 0.5]


def is_overconfident(facts: Facts) -> bool:
    """Whether confidence and accuracy are far apart."""
    found = detail(facts, "calibration")
    return bool(found and found.get("ece", 0.0) >= _UNRELIABLE)
