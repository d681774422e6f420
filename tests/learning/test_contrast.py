"""Supervised contrastive learning by its definition."""

from __future__ import annotations

import math

import pytest
import torch

from nlp_finetune.learning.contrast import contrast, last_layer, supervised_contrastive
from tests.learning.test_regularizers import loss_and_gradient, plain, tiny_bert


def by_the_paper(features: torch.Tensor, targets: list[int], temperature: float) -> float:
    """Equation 2, term by term."""
    z = [row / row.norm() for row in features]
    total = 0.0
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and targets[p] == targets[i]]
        below = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in range(len(z)) if a != i)
        total += sum(-math.log(math.exp(float(z[i] @ z[p]) / temperature) / below) / len(positives) for p in positives)
    return total


def test_the_contrast_is_the_papers_sum() -> None:
    torch.manual_seed(0)
    features, targets = torch.randn(7, 5), [0, 1, 0, 2, 1, 0, 3]
    found = contrast(features, torch.tensor(targets), temperature=0.3)
    assert float(found) == pytest.approx(by_the_paper(features, targets, 0.3), rel=1e-5)


def test_the_length_of_features_does_not_matter() -> None:
    features, targets = torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    lengths = torch.tensor([1.0, 2.0, 3.0, 0.5, 7.0, 1.0])[:, None]
    found = contrast(features * lengths, targets, temperature=0.1)
    torch.testing.assert_close(found, contrast(features, targets, temperature=0.1))


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_without_another_of_their_class_add_nothing_and_have_finite_gradients(rows: int) -> None:
    features = torch.randn(rows, 4, requires_grad=True)
    found = contrast(features, torch.arange(rows), temperature=0.1)
    found.backward()  # type: ignore[no-untyped-call]
    assert float(found.detach()) == 0.0
    assert features.grad is not None
    assert bool(torch.isfinite(features.grad).all())


def test_the_contrast_is_less_where_classes_are_apart() -> None:
    together, apart = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]]), torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    targets = torch.tensor([0, 0, 1, 1])
    assert contrast(apart, targets, temperature=0.3) < contrast(together, targets, temperature=0.3)


def test_with_weight_zero_it_is_the_objective() -> None:
    model = tiny_bert()
    loss, gradient = loss_and_gradient(supervised_contrastive(plain, weight=0.0, temperature=0.3), model)
    expected, expected_gradient = loss_and_gradient(plain, model)
    assert loss == pytest.approx(expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_it_compares_what_the_output_layer_reads_and_leaves_no_hook() -> None:
    model = tiny_bert()
    batch = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 10], [11, 12, 13]]), "labels": torch.tensor([0, 0, 1])}
    loss, outputs = supervised_contrastive(plain, weight=2.0, temperature=0.3)(model, batch, 3)
    features = model.bert(input_ids=batch["input_ids"]).pooler_output
    expected = plain(model, batch, 3)[0] + 2 * contrast(features, batch["labels"], temperature=0.3) / 3
    torch.testing.assert_close(loss, expected)
    assert last_layer(model) is model.classifier
    assert not model.classifier._forward_pre_hooks
    assert outputs.logits.shape == (3, 3)
