"""Chinese entities character by character: Resume NER and Weibo NER, a small ERNIE from its configuration.

ERNIE 3.0's own vocabulary, but no pretrained weights: the figures show that such data train, not what ERNIE can do.

python benchmarks/chinese_ner.py [DATA]
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from common import COSTS, costs, save, shared_data, train, with_interval

SIZES = (
    "{hidden_size: 128, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 256, "
    "max_position_embeddings: 256, use_task_id: true}"
)
EPOCHS = 10
HEADER = ["data", "training windows", "dev F1 (95 % CI)", "dictionary", "test F1", "dictionary", *COSTS]


def without_digits(source: Path, target: Path) -> Path:
    """Weibo NER writes the place in its word behind each character (`科0`): take it off."""
    target.write_text(re.sub(r"(?m)^(.+)[0-9]\t", r"\1\t", source.read_text("utf-8")), encoding="utf-8")
    return target


def main() -> None:
    resume, weibo = shared_data("resume_ner"), shared_data("weibo_ner")
    tokenizer = shared_data("tokenizers") / "ernie-3.0-base-zh"
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        sources = {
            "Resume NER": [resume / f"{split}.char.bmes" for split in ("train", "dev", "test")],
            "Weibo NER": [
                without_digits(weibo / f"weiboNER_2nd_conll.{split}", Path(folder, f"{split}.bio"))
                for split in ("train", "dev", "test")
            ],
        }
        for name, files in sources.items():
            paths = zip(("train", "validation", "test"), files, strict=True)
            metrics = train(
                "--recipe", "token_cls_zh", "model.checkpoint=scratch:ernie", f"model.tokenizer={tokenizer}",
                f"model.config={SIZES}", *(f"data.{split}={path}" for split, path in paths), "task.max_length=128",
                "task.bad_tags=repair", "optim.learning_rate=1e-3", "optim.warmup=0.1", f"train.epochs={EPOCHS}",
                "train.batch_size=32", "train.seed=1",
            )  # fmt: skip
            found[name] = metrics
            figures, rivals = metrics["train"], metrics["baselines"]
            number = round(figures["samples_per_second"] * figures["seconds"] / EPOCHS)
            rows.append(
                [
                    name,
                    f"{number:,}",
                    with_interval(metrics["validation"], "f1"),
                    f"{rivals['validation']['dictionary']['f1']:.3f}",
                    f"{metrics['test']['f1']:.3f}",
                    f"{rivals['test']['dictionary']['f1']:.3f}",
                    *costs(metrics),
                ]
            )
    title = f"Chinese entities: a small ERNIE (2 layers, 128 wide) from nothing, {EPOCHS} epochs"
    save("chinese_ner", title, HEADER, rows, metrics=found)


if __name__ == "__main__":
    main()
