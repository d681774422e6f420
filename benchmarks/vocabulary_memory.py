"""Memory of optimizer and gradients with an XLM-R-sized vocabulary, all rows trained and only those in use.

python benchmarks/vocabulary_memory.py

An XLM-R of two layers from configuration (250,002 rows of 768) takes one AdamW step on rows that hold as many
different tokens as SST-2 sentences do (11,568). What is counted are the bytes of the tensors, so other programs don't
matter.
"""

from __future__ import annotations

import sys

from common import ROOT, options, save

sys.path.insert(0, str(ROOT))

import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers

TOKENS = 11_568


def main() -> None:
    options()
    found = {name: measure(compacted=compacted) for name, compacted in (("all rows", False), ("rows in use", True))}
    whole, compact = found["all rows"], found["rows in use"]
    rows = [[name, *(f"{part / 2**20:,.0f}" for part in parts), f"{sum(parts) / sum(whole):.2f}"]
            for name, parts in found.items()]  # fmt: skip
    header = ["trained", "gradients MB", "optimizer MB", "share"]
    title = "Compact vocabulary: gradients and AdamW states, XLM-R's vocabulary, two layers"
    save("vocabulary_memory", title, header, rows, bytes={name: list(parts) for name, parts in found.items()})
    if sum(compact) * 3 > sum(whole):
        print("more than a third is left")


def measure(*, compacted: bool) -> tuple[int, int]:
    """Bytes of gradients and of optimizer states after one step."""
    import numpy as np
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    from nlp_finetune.learning.optimizers import make_optimizer
    from nlp_finetune.models.compact import compact

    config = XLMRobertaConfig(vocab_size=250_002, num_hidden_layers=2, max_position_embeddings=514)
    model = XLMRobertaForSequenceClassification(config)
    used = np.unique(np.linspace(3, 250_001, TOKENS).astype(int))
    if compacted:
        compact(model, np.union1d(used, [0, 1, 2]))
    optimizer = make_optimizer(model, name="adamw", learning_rate=1e-5, weight_decay=0.0)
    ids = torch.tensor(np.random.default_rng(0).choice(used, size=(4, 16)))
    model(input_ids=ids, labels=torch.zeros(4, dtype=torch.long)).loss.backward()
    optimizer.step()
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    states = sum(v.nbytes for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v))
    return gradients, states


if __name__ == "__main__":
    main()
