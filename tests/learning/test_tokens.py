"""Sums over tokens are those of the losses, by row and by segment."""

import numpy as np
import pytest
import torch

from nlp_finetune.learning.losses import cross_entropy
from nlp_finetune.learning.tokens import token_sums

LOGITS = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([[1, 2, -100, 4], [-100, -100, 0, -100]])


def test_sums_are_the_loss_the_count_and_the_hits() -> None:
    sums = np.stack(token_sums(LOGITS, TARGETS))
    assert sums[:, 0].sum() == pytest.approx(float(cross_entropy(LOGITS, TARGETS)), rel=1e-6)
    assert sums[:, 1].tolist() == [3, 1]
    right = (LOGITS.argmax(-1) == TARGETS).sum(1)
    assert sums[:, 2].tolist() == right.tolist()


def test_logits_of_the_targets_alone_give_the_same() -> None:
    alone = token_sums(LOGITS[TARGETS != -100], TARGETS)
    assert np.array_equal(np.stack(alone), np.stack(token_sums(LOGITS, TARGETS)))


def test_segments_divide_a_row() -> None:
    segments = torch.tensor([[0, 0, 1, 1], [0, -1, 0, -1]])
    parts = token_sums(LOGITS, TARGETS, segments)
    assert [len(part) for part in parts] == [2, 1]
    assert np.allclose([np.sum(part, axis=0) for part in parts], token_sums(LOGITS, TARGETS))
    assert parts[0][1][1] == 1


def test_nothing_to_predict_gives_zeros() -> None:
    assert np.stack(token_sums(LOGITS, torch.full((2, 4), -100))).tolist() == [[0, 0, 0], [0, 0, 0]]
