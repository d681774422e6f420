"""The sections of a page that show what a run was given: data, machine and recipe."""

from __future__ import annotations

import shlex
from typing import Any

from nlp_finetune.reports.reading import RunData

_MOST_LABELS = 300


def data(check: dict[str, Any]) -> dict[str, Any] | None:
    """Splits, labels and findings of check.json."""
    if not check.get("splits"):
        return None
    splits = []
    for name, rows in check["splits"].items():
        lengths = check.get("lengths", {}).get(name, {})
        percentiles = lengths.get("percentiles", {})
        splits.append(
            {
                "name": name, "rows": rows, "origin": check.get("origins", {}).get(name, ""),
                "median": percentiles.get("50", ""), "p95": percentiles.get("95", ""),
                "longest": lengths.get("longest", ""), "cut": lengths.get("summary", ""),
            }
        )  # fmt: skip
    order = {"error": 0, "warning": 1}
    findings = sorted(check.get("findings", []), key=lambda f: order.get(f.get("level"), 2))
    findings = [f for f in findings if f.get("code") != "class_balance"]
    return {"splits": splits, "labels": _labels(check.get("labels") or {}), "findings": findings}


def _labels(labels: dict[str, dict[str, int]]) -> dict[str, Any] | None:
    train = labels.get("train")
    if not train:
        return None
    names = sorted({name for counts in labels.values() for name in counts}, key=lambda n: (-train.get(n, 0), n))
    total = max(1, sum(train.values()))
    rows = [
        {"label": n, "counts": [labels[s].get(n, 0) for s in labels], "share": train.get(n, 0) / total}
        for n in names[:_MOST_LABELS]
    ]
    return {"splits": list(labels), "rows": rows}


def setup(run: RunData) -> dict[str, Any] | None:
    """Versions, hardware, command and recipe."""
    stamp = run.environment
    if not stamp and not run.recipe_text:
        return None
    packages = ", ".join(f"{name} {version}" for name, version in (stamp.get("packages") or {}).items())
    facts = [
        ("Python", stamp.get("python")),
        ("Packages", packages),
        ("Machine", " · ".join(str(p) for p in (stamp.get("platform"), stamp.get("processor")) if p)),
        ("Cores", stamp.get("cores")),
        ("Devices", ", ".join(map(str, stamp.get("devices") or [])) or "CPU"),
        ("Processes", stamp.get("processes")),
        ("Commit", stamp.get("git_commit")),
    ]
    command = stamp.get("command")
    return {
        "environment": [(name, str(value)) for name, value in facts if value] if stamp else [],
        "command": shlex.join(map(str, command)) if isinstance(command, list) else None,
        "recipe": run.recipe_text,
    }
