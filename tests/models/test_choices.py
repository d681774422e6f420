"""Losses and probabilities over options whose number differs from row to row."""

from collections.abc import Callable

import pytest
import torch

from nlp_finetune.learning.losses import build_loss
from nlp_finetune.models.choices import choice_loss, probabilities

COUNTS = torch.tensor([3, 2, 5, 2])
LABELS = torch.tensor([2, 0, 4, 1])
LOSSES: dict[str, Callable] = {
    "plain": build_loss("cross_entropy"),
    "smoothed": build_loss("cross_entropy", label_smoothing=0.2),
    "focal": build_loss("focal", gamma=1.5),
}


def logits() -> torch.Tensor:
    return torch.randn(12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_sum_of_each_rows_own(name: str) -> None:
    loss, given = LOSSES[name], logits()
    alone = [loss(row.unsqueeze(0), LABELS[i : i + 1]) for i, row in enumerate(given.split(COUNTS.tolist()))]
    assert torch.allclose(choice_loss(loss, given, COUNTS, LABELS), torch.stack(alone).sum())


@pytest.mark.parametrize("name", LOSSES)
def test_a_rows_gradient_does_not_depend_on_the_rows_beside_it(name: str) -> None:
    together, alone = logits().requires_grad_(), logits().requires_grad_()
    choice_loss(LOSSES[name], together, COUNTS, LABELS).backward()
    choice_loss(LOSSES[name], alone[3:5], COUNTS[1:2], LABELS[1:2]).backward()
    assert torch.allclose(together.grad[3:5], alone.grad[3:5])


def test_probabilities_of_each_row_add_up_to_one() -> None:
    found = probabilities(logits(), COUNTS)
    assert [len(row) for row in found] == COUNTS.tolist()
    assert torch.allclose(torch.stack([row.sum() for row in found]), torch.ones(4))
