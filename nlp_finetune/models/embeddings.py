"""Vectors of texts from a model's last hidden states, their losses, and how sentence-transformers loads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def pool(hidden: Tensor, mask: Tensor, *, pooling: str) -> Tensor:
    """Vectors of unit length, `[texts, width]`, in float32.

    `hidden` is `[texts, tokens, width]`, `mask` `[texts, tokens]` with 1 where a token is no padding.
    `mean` averages over tokens, `cls` takes the first one (Reimers and Gurevych 2019, Sentence-BERT).
    """
    hidden = hidden.float()
    if pooling == "cls":
        return F.normalize(hidden[:, 0], dim=-1)
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return F.normalize((hidden * weights).sum(1) / weights.sum(1).clamp_min(1e-9), dim=-1)


def scored_loss(loss: Loss, vectors: Tensor, targets: Tensor) -> Tensor:
    """Sum of `loss(cosine [rows], targets [rows])` over rows.

    `vectors` is `[rows, 2, width]` of unit length. With the squared error this is
    sentence-transformers' CosineSimilarityLoss, summed.
    """
    return loss((vectors[:, 0] * vectors[:, 1]).sum(-1), targets)


def in_batch_loss(loss: Loss, vectors: Tensor, text_ids: Tensor, *, scale: float) -> Tensor:
    """Sum over rows of `loss(scale x cosines with all candidates, own positive)`.

    `vectors` is `[rows, 2 or 3, width]` of unit length: anchor, positive, and a negative. Candidates of
    each anchor are the positives and negatives of all rows given. Candidates that say nothing against
    the anchor are left out: texts equal to its positive or to itself, and positives of equal anchors;
    `text_ids` `[rows, 2 or 3]` are equal where texts are. With cross-entropy and no equal texts this is
    sentence-transformers' MultipleNegativesRankingLoss, summed (Henderson et al. 2017, Efficient
    Natural Language Response Suggestion for Smart Reply).
    """
    rows = len(vectors)
    candidates = vectors[:, 1:].transpose(0, 1).flatten(0, 1)  # all positives, then all negatives
    logits = scale * vectors[:, 0] @ candidates.T
    kept = _kept(text_ids)
    whole = kept.all(1)
    targets = torch.arange(rows, device=logits.device)
    parts = [loss(logits[whole], targets[whole])]
    for row in torch.nonzero(~whole).flatten().tolist():
        own = kept[row, :row].sum().reshape(1)  # where the positive stands among what is kept
        parts.append(loss(logits[row, kept[row]].unsqueeze(0), own))
    return torch.stack(parts).sum()


def _kept(text_ids: Tensor) -> Tensor:
    """Which candidates count against each anchor, `[rows, candidates]`; its own positive always does."""
    anchors, others = text_ids[:, 0], text_ids[:, 1:].T.flatten()
    rows = len(anchors)
    dropped = (others == text_ids[:, 1:2]) | (others == anchors.unsqueeze(1))
    dropped[:, :rows] |= anchors == anchors.unsqueeze(1)
    dropped[:, :rows].fill_diagonal_(False)
    return ~dropped


def save_for_sentence_transformers(folder: Path, *, pooling: str, max_length: int) -> None:
    """Write beside a saved model what `SentenceTransformer(folder)` needs to give the same vectors.

    Raises nothing of its own; `folder` holds the model's config.json.
    """
    from transformers import AutoConfig

    width = AutoConfig.from_pretrained(folder).hidden_size
    parts = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(parts)
    ]
    modes = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "mean_sqrt_len_tokens": "mean_sqrt_len"}
    written = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {"similarity_fn_name": "cosine"},
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            **{f"pooling_mode_{name}": mode == pooling for name, mode in modes.items()},
        },
    }
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir(exist_ok=True)
    for name, content in written.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
