"""Sentiment of Chinese reviews: ChnSentiCorp, a small ERNIE from its configuration beside TF-IDF.

ERNIE 3.0's own vocabulary, but no pretrained weights: the figures show that such data train, not what ERNIE can do.
The public split leaks: 338 dev rows also occur in train. Training texts that occur in dev or test are left out here,
and so is all but the first of several equal ones.

python benchmarks/chnsenticorp.py [DATA]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import COSTS, costs, save, shared_data, train, with_interval

SIZES = (
    "{hidden_size: 128, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 256, "
    "max_position_embeddings: 256, use_task_id: true}"
)
EPOCHS = 4
HEADER = ["training rows", "dev accuracy (95 % CI)", "TF-IDF dev", "test accuracy", "TF-IDF test", *COSTS]


def without_leaks(folder: Path, target: Path) -> tuple[Path, int]:
    """Training rows whose text occurs once and in no other split, and how many they are."""

    def lines(split: str) -> list[str]:
        return (folder / f"{split}.tsv").read_text(encoding="utf-8").splitlines()

    head, *rows = lines("train")
    seen = {row.partition("\t")[2].strip() for split in ("dev", "test") for row in lines(split)}
    kept = []
    for row in rows:
        text = row.partition("\t")[2].strip()
        if text not in seen:
            seen.add(text)
            kept.append(row)
    target.write_text("\n".join([head, *kept]) + "\n", encoding="utf-8")
    return target, len(kept)


def main() -> None:
    folder = shared_data("chnsenticorp")
    tokenizer = shared_data("tokenizers") / "ernie-3.0-base-zh"
    with tempfile.TemporaryDirectory() as scratch:
        path, count = without_leaks(folder, Path(scratch) / "train.tsv")
        metrics = train(
            "--recipe", "text_cls_ernie", "model.checkpoint=scratch:ernie", f"model.tokenizer={tokenizer}",
            f"model.config={SIZES}", f"data.train={path}", f"data.validation={folder / 'dev.tsv'}",
            f"data.test={folder / 'test.tsv'}", "data.quoting=none", "task.text=[text_a]", "task.label=label",
            "task.max_length=128", "optim.learning_rate=1e-3", "optim.warmup=0.1", f"train.epochs={EPOCHS}",
            "train.batch_size=32", "train.threads=1", "train.seed=1",
        )  # fmt: skip
    rivals = metrics["baselines"]
    row = [
        f"{count:,}", with_interval(metrics["validation"], "accuracy"),
        f"{rivals['validation']['tfidf']['accuracy']:.3f}", f"{metrics['test']['accuracy']:.3f}",
        f"{rivals['test']['tfidf']['accuracy']:.3f}", *costs(metrics),
    ]  # fmt: skip
    save("chnsenticorp", f"ChnSentiCorp: small ERNIE from nothing, {EPOCHS} epochs", HEADER, [row], metrics=metrics)


if __name__ == "__main__":
    main()
