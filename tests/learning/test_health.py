"""What is measured of gradients, updates and the head, and that other steps are left alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, TrainerControl, TrainerState

import nlp_finetune.engines  # noqa: F401  before models of transformers
from nlp_finetune.learning.clipping import clip_by_value
from nlp_finetune.learning.health import Health, head_statistics, sample
from nlp_finetune.models.groups import head_of, trained_groups


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            num_labels=3,
        )
    )


def step(model: nn.Module, health: Health, *, rate: float = 0.1, clip: float | None = None) -> float:
    """One step of SGD as the engines make it; gives the norm before clipping."""
    state, control = TrainerState(), TrainerControl()
    health.on_step_begin(None, state, control)
    model(input_ids=torch.arange(5, 17).view(3, 4), labels=torch.tensor([0, 1, 2])).loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf)
    health.on_gradients(norm)
    torch.optim.SGD(model.parameters(), lr=rate).step()
    health.on_optimizer_step(None, state, control)
    state.global_step = 1
    health.on_log(None, state, control, logs={"loss": 1.0})
    return float(norm)


def test_groups_hold_every_parameter_once_in_the_order_of_the_model() -> None:
    model = bert()
    groups = trained_groups(model)
    assert list(groups) == [
        "bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1", "bert.pooler", "classifier",
    ]  # fmt: skip
    held = [id(p) for own in groups.values() for p in own]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert head_of(model) is model.classifier


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_norms_of_the_groups_make_up_the_norm_before_clipping(clip: float | None) -> None:
    model = bert()
    health = Health(trained_groups(model), head_of(model), due=lambda _: True)
    norm = step(model, health, clip=clip)
    assert math.hypot(*health.line["gradients"].values()) == pytest.approx(norm, rel=1e-4)


def test_the_ratio_of_an_update_is_that_of_plain_gradient_descent() -> None:
    model = bert()
    before = model.classifier.weight.detach().clone()
    health = Health({"head": [model.classifier.weight]}, None, due=lambda _: True)
    step(model, health, rate=0.1)
    moved = (model.classifier.weight.detach() - before).norm() / before.norm()
    assert health.line["updates"]["head"] == pytest.approx(float(moved), rel=1e-4)


def test_a_step_that_is_not_logged_is_not_measured() -> None:
    model = bert()
    health = Health(trained_groups(model), head_of(model), due=lambda _: False)
    step(model, health)
    assert health.line == {}


def test_measuring_leaves_the_random_state_and_the_weights_alone() -> None:
    ends = []
    for due in (True, False):
        model = bert().train()
        health = Health(trained_groups(model), head_of(model), due=lambda _, due=due: due)
        torch.manual_seed(3)
        step(model, health)
        ends.append((torch.rand(()), torch.cat([p.detach().flatten() for p in model.parameters()])))
    assert torch.equal(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1], ends[1][1])


def test_frozen_groups_are_left_out() -> None:
    model = bert()
    model.bert.embeddings.requires_grad_(False)
    health = Health(trained_groups(model), head_of(model), due=lambda _: True)
    step(model, health)
    assert "bert.embeddings" not in health.line["gradients"]
    assert "classifier" in health.line["gradients"]


def test_the_head_is_measured_by_what_it_is_given_and_gives() -> None:
    given, made = torch.tensor([[0.0, 2.0], [0.0, -2.0]]), torch.tensor([[1.0, -3.0]])
    assert head_statistics((given,), (made,)).tolist() == pytest.approx([math.sqrt(2), 0.5, -1.0, 2.0, 3.0])
    assert head_statistics((), {}) is None
    assert math.isnan(head_statistics((), made)[0])


def test_a_sample_of_a_large_tensor_visits_all_its_columns() -> None:
    width = 384
    table = torch.arange(1000 * width).view(1000, width)
    taken = sample(table)
    assert len(taken) <= 20_000
    assert len(set((taken % width).tolist())) == width
    assert sample(torch.ones(7)).shape == (7,)


def test_clipping_by_value_bounds_every_number_and_leaves_small_ones() -> None:
    weight = nn.Parameter(torch.zeros(3))
    weight.grad = torch.tensor([0.5, -7.0, 3.0])
    clip_by_value([weight, nn.Parameter(torch.zeros(1))], limit=1.0)
    assert weight.grad.tolist() == [0.5, -1.0, 1.0]
