"""Each regulariser by its defining property."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.learning.losses import IGNORED
from nlp_finetune.learning.regularizers import (
    Objective,
    PullToStart,
    add_noise,
    adversarial,
    binary_divergence,
    class_divergence,
    perturbation,
    r_drop,
    word_embeddings,
)


def tiny_bert(dropout: float = 0.0) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            num_labels=3, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        )
    )  # fmt: skip


BATCH = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 10]]), "labels": torch.tensor([0, 2])}


def plain(model: Any, batch: Any, num_items: Any) -> tuple[Tensor, Any]:
    outputs = model(input_ids=batch["input_ids"])
    return F.cross_entropy(outputs.logits, batch["labels"], reduction="sum") / num_items, outputs


def loss_and_gradient(objective: Objective, model: torch.nn.Module) -> tuple[float, Tensor]:
    model.zero_grad()
    loss, _ = objective(model, BATCH, torch.tensor(2))
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), word_embeddings(model).weight.grad.clone()


def test_r_drop_without_dropout_is_the_objective() -> None:
    model = tiny_bert()
    loss, gradient = loss_and_gradient(r_drop(plain, weight=5.0, divergence=class_divergence), model)
    expected, expected_gradient = loss_and_gradient(plain, model)
    assert loss == pytest.approx(expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_r_drop_with_weight_zero_is_the_mean_of_two_passes() -> None:
    model = tiny_bert(dropout=0.5)
    torch.manual_seed(1)
    passes = [float(plain(model, BATCH, 2)[0].detach()) for _ in range(2)]
    torch.manual_seed(1)
    loss, _ = r_drop(plain, weight=0.0, divergence=class_divergence)(model, BATCH, 2)
    assert passes[0] != passes[1]
    assert float(loss.detach()) == pytest.approx(sum(passes) / 2)


def test_the_divergence_of_classes_is_torchs_kl_both_ways_over_counted_items() -> None:
    one, other = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    targets = torch.tensor([[0, 1, IGNORED, 2], [IGNORED, 0, 1, 1]])
    p, q = (F.log_softmax(x[targets != IGNORED], -1) for x in (one, other))
    both = F.kl_div(p, q, log_target=True, reduction="sum") + F.kl_div(q, p, log_target=True, reduction="sum")
    torch.testing.assert_close(class_divergence(one, other, targets), both / 2)


def test_the_divergence_of_one_binary_class_is_that_of_two_classes() -> None:
    one, other = torch.randn(5, 1), torch.randn(5, 1)
    as_two = [torch.cat([x, torch.zeros_like(x)], -1) for x in (one, other)]
    expected = class_divergence(*as_two, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(binary_divergence(one, other, torch.zeros(5, 1)), expected)


def test_a_perturbation_has_the_asked_length_in_every_row_with_a_gradient() -> None:
    gradient = torch.randn(3, 4, 5)
    gradient[1] = 0
    lengths = perturbation(gradient, size=0.7).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([0.7, 0.0, 0.7]))


def test_an_attack_of_size_zero_changes_nothing() -> None:
    model = tiny_bert()
    loss, gradient = loss_and_gradient(adversarial(plain, size=0.0), model)
    expected, expected_gradient = loss_and_gradient(plain, model)
    assert loss == pytest.approx(expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_an_attack_raises_the_loss_and_leaves_weights_and_hooks_alone() -> None:
    model = tiny_bert()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss, _ = loss_and_gradient(adversarial(plain, size=1.0), model)
    assert loss > loss_and_gradient(plain, model)[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not word_embeddings(model)._forward_hooks


def test_an_attack_reaches_a_model_whose_embeddings_are_frozen() -> None:
    model = tiny_bert()
    word_embeddings(model).requires_grad_(False)
    loss, _ = adversarial(plain, size=1.0)(model, BATCH, 2)
    assert loss > plain(model, BATCH, 2)[0]


def test_noise_on_embeddings_is_bounded_and_only_there_in_training() -> None:
    model = tiny_bert()
    table = word_embeddings(model)
    clean = table(BATCH["input_ids"]).detach()
    add_noise(model, alpha=5.0)
    noisy = model.train().get_input_embeddings()(BATCH["input_ids"]).detach()
    bound = 5.0 / (3 * 16) ** 0.5
    assert 0 < (noisy - clean).abs().max() <= bound
    assert torch.equal(model.eval().get_input_embeddings()(BATCH["input_ids"]), clean)


def test_the_pull_is_the_gradient_of_the_squared_distance_from_the_start() -> None:
    model = tiny_bert()
    callback = PullToStart(model, strength=0.3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    callback.on_pre_optimizer_step(TrainingArguments(use_cpu=True), TrainerState(), TrainerControl())
    start = {id(p): s for p, s in zip(callback.pulled, callback.start, strict=True)}
    for name, weight in model.named_parameters():
        expected = 0.3 * (weight - start[id(weight)]) if name.startswith("bert.") else torch.zeros_like(weight)
        torch.testing.assert_close(weight.grad, expected)
