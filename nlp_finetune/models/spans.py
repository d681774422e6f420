"""From start and end logits to answer spans, and to the loss of a batch of windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

SPANS = 20
"""Spans kept of a window, and of a row."""


def span_loss(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], outputs: Any, batch: Mapping[str, Any]
) -> torch.Tensor:
    """Sum over windows of the mean of the losses of start and end.

    The classes of a window are its own tokens: padding is none of them, so that the loss does not
    depend on which other windows are in the batch.
    """
    import torch

    lengths = batch["attention_mask"].sum(1)
    total = torch.zeros((), device=lengths.device)
    for length in lengths.unique().tolist():
        rows = lengths == length
        for logits, labels in (
            (outputs.start_logits, batch["start_positions"]),
            (outputs.end_logits, batch["end_positions"]),
        ):
            total = total + loss(logits[rows, :length], labels[rows]) / 2
    return total


def window_spans(outputs: Any, batch: Mapping[str, Any], *, longest: int) -> list[np.ndarray]:
    """The best spans of each window, at most `SPANS`, each of at most `longest` characters.

    One array `[spans, 3]` a window, best first: score, first character, end character (exclusive).
    The score is the log odds of the span against "no answer here" in the same window,
    `start + end - null_start - null_end`: it is comparable between windows, which logits are not.
    """
    start, end = outputs.start_logits.float(), outputs.end_logits.float()
    nulls = batch["null_position"][:, None]
    null = (start.gather(1, nulls) + end.gather(1, nulls))[:, 0]
    return [
        _best(start[i], end[i], null[i], batch["char_start"][i], batch["char_end"][i], longest)
        for i in range(len(start))
    ]


def _best(
    start: torch.Tensor,
    end: torch.Tensor,
    null: torch.Tensor,
    char_start: torch.Tensor,
    char_end: torch.Tensor,
    longest: int,
) -> np.ndarray:
    """Best spans of one window; all tensors are `[tokens]`, `null` is a number."""
    import torch

    tokens = (char_start >= 0).nonzero()[:, 0]
    first, last = char_start[tokens], char_end[tokens]
    characters = last[None, :] - first[:, None]
    # A token longer than any answer is still an answer of one token.
    allowed = (characters <= longest).triu() | torch.eye(len(tokens), dtype=torch.bool, device=tokens.device)
    scores = (start[tokens][:, None] + end[tokens][None, :] - null).masked_fill(~allowed, -torch.inf).flatten()
    found = scores.topk(min(SPANS, int(allowed.sum())))
    rows, columns = found.indices // max(len(tokens), 1), found.indices % max(len(tokens), 1)
    spans = torch.stack([found.values.double(), first[rows].double(), last[columns].double()], dim=1)
    return spans.cpu().numpy()


def merge(windows: Sequence[np.ndarray]) -> np.ndarray:
    """The best spans of a row from those of its windows: each span once, with its best score."""
    spans = np.concatenate(windows)
    spans = spans[np.argsort(-spans[:, 0], kind="stable")]
    _, first = np.unique(spans[:, 1:], axis=0, return_index=True)
    return spans[np.sort(first)][:SPANS]


def shares(spans: np.ndarray) -> tuple[np.ndarray, float]:
    """Probability of each span `[spans]`, and of no answer, among these and no others.

    A softmax over the scores and 0, the score of "no answer".
    """
    scores = np.append(spans[:, 0], 0.0)
    exponents = np.exp(scores - scores.max())
    probabilities = exponents / exponents.sum()
    return probabilities[:-1], float(probabilities[-1])
