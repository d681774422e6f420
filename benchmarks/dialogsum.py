"""DialogSum, a small T5 and its tokenizer from nothing: trained on the dev split (500 dialogues), scored on test.

The training split is not among the shared data, so this is far from what the data are for: it shows that real
dialogues, with three references each, go through the whole path, and what 450 of them teach a model that knows nothing.

python benchmarks/dialogsum.py [DATA]
"""

from __future__ import annotations

from common import COSTS, costs, save, shared_data, train, with_interval

HEADER = ["engine", "validation ROUGE-L", "test ROUGE-L (95 % CI)", "ROUGE-1", "ROUGE-2", "chrF", "BLEU", *COSTS]
SIZES = "{vocab_size: 2000, d_model: 128, d_kv: 32, d_ff: 256, num_layers: 2, num_heads: 4, dropout_rate: 0.1}"


def main() -> None:
    data = shared_data("dialogsum")
    metrics = train(
        "--recipe", "seq2seq", f"data.train={data / 'dialogsum.dev.jsonl'}",
        f"data.test={data / 'dialogsum.test.jsonl'}", "task.source=dialogue", "task.target=summary",
        'task.source_prefix=""', "task.max_length=384", "task.max_target_length=64", "task.no_repeat_ngram_size=3",
        "model.checkpoint=scratch:t5", "model.tokenizer=train", f"model.config={SIZES}", "optim.learning_rate=1e-3",
        "optim.warmup=0.1", "train.epochs=10", "train.batch_size=16", "train.eval_every=140", "train.seed=1",
    )  # fmt: skip
    test, rivals = metrics["test"], metrics["baselines"]["test"]
    row = ["trainer", f"{metrics['validation']['rougeL']:.3f}", with_interval(test, "rougeL")]
    rows = [[*row, *_scores(test), *costs(metrics)]]
    for name, scores in rivals.items():
        rows.append([f"rival: {name}", "", f"{scores['rougeL']:.3f}", *_scores(scores), *[""] * len(COSTS)])
    save("dialogsum", "DialogSum: a small T5 from nothing, 450 dialogues, 10 epochs", HEADER, rows, metrics=metrics)


def _scores(scores: dict[str, float]) -> list[str]:
    return [f"{scores[name]:.3f}" for name in ("rouge1", "rouge2")] + [f"{scores[n]:.1f}" for n in ("chrf", "bleu")]


if __name__ == "__main__":
    main()
