"""The sections of a page that show what stands behind the scores: details.json for readers."""

from __future__ import annotations

from typing import Any

from nlp_finetune.reports import charts

_MOST_CLASSES = 120
"""A table of more classes than this would make the page too large."""
_DENSE_FROM = 11
_PAIRS = 15
_PALE, _STRONG = 12, 55
"""Share of colour, in percent, of the rarest cell, and from which on the text in it is inverted."""


def evidence(details: dict[str, Any]) -> dict[str, Any] | None:
    """Reliability, scores by length, numbers, classes and their confusion, of one split."""
    plots = []
    calibration = details.get("calibration") or {}
    if calibration.get("bins"):
        ece = calibration["ece"]
        plots.append(
            {
                "title": "Reliability",
                "note": f"How often predictions of each confidence are right; dashed: as often as they claim. "
                f"Expected calibration error {ece:.3f}, over {calibration.get('of', 'rows')}.",
                "svg": charts.reliability("reliability", calibration["bins"]),
                "spoken": f"expected calibration error {ece:.3f}",
            }
        )
    groups, name = details.get("by_length") or [], (details.get("row_score") or {}).get("name")
    if len(groups) > 1 and name:
        plots.append(
            {
                "title": f"{name} by length",
                "note": f"Length in tokens before anything is cut; about {groups[0]['rows']:,} rows a bar.",
                "svg": charts.by_length("length", groups, name),
                "spoken": ", ".join(f"{g['low']} to {g['high']} tokens: {g[name]:.3f}" for g in groups),
            }
        )
    if details.get("points"):
        plots.append(
            {
                "title": "Predicted and true",
                "note": "Each dot is a row; dashed: predicted exactly.",
                "svg": charts.points("points", details["points"]),
                "spoken": f"{len(details['points'])} rows",
            }
        )
    classes = sorted(details.get("classes") or [], key=lambda c: (c.get("f1") or 0, c["label"]))
    confusion = _confusion(details.get("confusion") or {})
    kinds = details.get("groups") or []
    if not (plots or classes or confusion or kinds):
        return None
    return {"plots": plots, "classes": classes, "confusion": confusion, "groups": kinds}


def _confusion(found: dict[str, Any]) -> dict[str, Any] | None:
    labels, matrix = found.get("labels") or [], found.get("matrix") or []
    if not matrix:
        return None
    rows, pairs = [], []
    for true, counts in zip(labels, matrix, strict=True):
        total = sum(counts) or 1
        cells: list[dict[str, Any] | None] = []
        for predicted, count in zip(labels, counts, strict=True):
            share = count / total
            if count and predicted != true:
                pairs.append({"label": true, "predicted": predicted, "count": count, "share": share})
            colour = round(_PALE + (100 - _PALE) * share)
            kind = ("r" if predicted == true else "e") + (" h" if colour >= _STRONG else "")
            cell = {"kind": kind, "share": colour, "count": count, "predicted": predicted}
            cells.append(cell if count else None)
        rows.append({"label": true, "cells": cells})
    pairs.sort(key=lambda pair: -pair["count"])
    return {
        "labels": labels,
        "rows": rows if len(labels) <= _MOST_CLASSES else [],
        "dense": len(labels) >= _DENSE_FROM,
        # In a small table the pairs are seen at once.
        "pairs": pairs[:_PAIRS] if len(labels) > 4 else [],
        "of": found.get("of", "rows"),
    }


def mistakes(details: dict[str, Any], split: str) -> dict[str, Any] | None:
    """The worst mistakes of a split, its hardest texts, and training labels that look wrong."""
    measured, train = details.get(split, {}), details.get("train") or {}
    rows, hardest = measured.get("mistakes") or [], measured.get("hardest") or []
    note = None
    if "suspects" in train:
        note = (
            f"{train.get('rows', 0):,} of {train.get('of', 0):,} training rows were looked at. The model has seen "
            "these labels and still contradicts them; wrong labels that it learned by heart are not among them."
        )
    if not (rows or hardest or note):
        return None
    by_error = measured.get("mistakes_by") == "error"
    return {
        "rows": rows,
        "caption": "Largest errors" if by_error else "Most confident mistakes",
        "note": f"Of the {split} rows; texts are cut.",
        "by": "error" if by_error else "confidence",
        "hardest": hardest,
        "suspects": train.get("suspects") or [],
        "suspects_by": "error" if train.get("suspects_by") == "error" else "confidence",
        "suspects_note": note,
    }
