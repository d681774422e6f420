"""tinyshakespeare, a small GPT-2 from nothing with GPT-2's own BPE: how far does the loss fall in some minutes?

The first 90 % of the text are learned, the next 5 % validate, the last 5 % test. The rival counts neighbouring tokens.

python benchmarks/tinyshakespeare.py [DATA]
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from common import COSTS, costs, save, shared_data, train

SIZES = "{n_positions: 128, n_embd: 64, n_layer: 2, n_head: 4}"
HEADER = ["model", "learning rate", "epochs", "test loss", "perplexity", "bigram rival", "unigram rival", *COSTS]


def main() -> None:
    text = (shared_data("tinyshakespeare") / "input.txt").read_text(encoding="utf-8")
    tokenizer = shared_data("tokenizers") / "gpt2"
    speeches = [speech for speech in text.split("\n\n") if speech.strip()]
    cuts = {"train": (0.0, 0.9), "validation": (0.9, 0.95), "test": (0.95, 1.0)}
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for split, (first, last) in cuts.items():
            part = speeches[round(first * len(speeches)) : round(last * len(speeches))]
            path = Path(scratch, f"{split}.jsonl")
            path.write_text("".join(json.dumps({"text": speech}) + "\n" for speech in part), encoding="utf-8")
            files.append(f"data.{split}={path}")
        rate, epochs = "5e-3", 3
        metrics = train(
            "--recipe", "causal_lm", "model.checkpoint=scratch:gpt2", f"model.tokenizer={tokenizer}",
            f"model.config={SIZES}", *files, "task.block_size=128", "task.cross_documents=true",
            f"optim.learning_rate={rate}", "optim.warmup=0.1", f"train.epochs={epochs}", "train.batch_size=8",
            "train.precision=bf16", "train.seed=1",
        )  # fmt: skip
    test, rivals = metrics["test"], metrics["baselines"]["test"]
    row = ["GPT-2, 2 layers, 64 wide", rate, epochs, f"{test['loss']:.2f}", f"{test['perplexity']:.1f}"]
    row += [f"{rivals[name]['perplexity']:.1f}" for name in ("bigram", "unigram")]
    save("tinyshakespeare", "tinyshakespeare: GPT-2 from nothing", HEADER, [[*row, *costs(metrics)]], metrics=metrics)


if __name__ == "__main__":
    main()
