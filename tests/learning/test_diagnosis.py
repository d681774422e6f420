"""Vanishing and exploding gradients are told apart from healthy training, on models that were made so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState

import nlp_finetune.engines  # noqa: F401  before models of transformers
from nlp_finetune.learning.diagnosis import diagnose
from nlp_finetune.learning.health import Doctor, Health
from nlp_finetune.models.groups import head_of, trained_groups

DEPTH = 12


class Block(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.linear(x))


class Deep(nn.Module):
    """Blocks in a list, as families of models have them, and a head."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(activation) for _ in range(DEPTH))
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def train(model: nn.Module, *, rate: float = 1e-3, steps: int = 8) -> list[dict[str, Any]]:
    """History of a few steps of plain SGD, measured by the callback that runs measure with."""
    torch.manual_seed(1)
    rows, labels = torch.randn(32, 16), torch.randint(3, (32,))
    health = Health(trained_groups(model), head_of(model), due=lambda _: True)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    state, control, lines = TrainerState(), TrainerControl(), []
    for step in range(1, steps + 1):
        health.on_step_begin(None, state, control)
        loss = nn.functional.cross_entropy(model(rows), labels)
        loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        health.on_gradients(norm)
        optimizer.step()
        health.on_optimizer_step(None, state, control)
        optimizer.zero_grad()
        state.global_step = step
        health.on_log(None, state, control, logs={"loss": 1.0})
        lines.append({"step": step, "loss": loss.item(), "grad_norm": float(norm), "health": health.line})
    return lines


def made(activation: nn.Module, scale: float | None = None) -> Deep:
    torch.manual_seed(0)
    model = Deep(activation)
    if scale is not None:
        for layer in model.layers:
            nn.init.normal_(layer.linear.weight, std=scale)
    return model


def found(model: nn.Module, **settings: Any) -> list[tuple[str, str | None]]:
    return [(finding.kind, finding.where) for finding in diagnose(train(model, **settings))]


def test_a_healthy_model_has_no_finding() -> None:
    assert found(made(nn.ReLU(), scale=(2 / 16) ** 0.5)) == []


def test_a_deep_stack_of_sigmoids_vanishes_at_its_lowest_layer() -> None:
    assert found(made(nn.Sigmoid())) == [("vanishing", "layers.0")]


def test_tiny_weights_without_a_head_of_their_own_size_vanish_everywhere() -> None:
    model = made(nn.Tanh(), scale=1e-3)
    for parameter in model.head.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(model.head.weight, 1e-9)
    model.head.bias.requires_grad_(False)
    for layer in model.layers:
        layer.linear.bias.data.zero_()
    assert found(model) == [("vanishing", None)]


def test_large_weights_explode() -> None:
    assert found(made(nn.ReLU(), scale=1.5), rate=1e-12) == [("exploding", None)]


def test_a_gradient_that_grows_on_its_way_down_explodes_at_the_lowest_layer() -> None:
    norms = {f"layers.{n}": 10.0 ** (6 - n) for n in range(6)}
    history = [{"step": n, "loss": 1.0, "grad_norm": 1.0, "health": {"gradients": norms}} for n in (1, 2)]
    assert [(finding.kind, finding.where) for finding in diagnose(history)] == [("exploding", "layers.0")]


def test_a_learning_rate_that_is_far_too_large_moves_weights_by_their_own_size() -> None:
    kinds = found(made(nn.ReLU(), scale=(2 / 16) ** 0.5), rate=100.0)
    assert kinds
    assert {kind for kind, _ in kinds} == {"exploding"}


def test_a_gradient_that_grows_a_hundredfold_explodes() -> None:
    history = [{"step": n, "loss": 1.0, "grad_norm": 0.5} for n in range(1, 6)]
    assert diagnose(history) == []
    (finding,) = diagnose([*history, {"step": 6, "loss": 1.0, "grad_norm": 80.0}])
    assert (finding.kind, finding.where, finding.step) == ("exploding", None, 6)
    assert "optim.learning_rate" in finding.message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_explodes(value: float) -> None:
    history = [{"step": 1, "loss": 1.0, "grad_norm": 0.5}, {"step": 2, "loss": 1.0, "grad_norm": value}]
    assert [finding.kind for finding in diagnose(history)] == ["exploding"]


def test_a_run_that_has_learned_its_rows_does_not_vanish() -> None:
    history = [{"step": n, "loss": 10.0**-n, "grad_norm": 10.0 ** -(n + 4)} for n in range(1, 8)]
    assert diagnose(history) == []


def test_lines_without_measurements_are_no_finding() -> None:
    assert diagnose([]) == []
    assert diagnose([{"step": 1, "loss": 1.0}, {"step": 1, "validation": {"loss": 1.0}}]) == []


def test_the_log_says_a_finding_once() -> None:
    said: list[str] = []
    health = Health({"all": [nn.Parameter(torch.ones(1))]}, None, due=lambda _: False)
    doctor = Doctor(health, say=said.append)
    doctor.on_train_begin(None, TrainerState(), TrainerControl())
    for step in range(1, 9):
        logs = {"loss": 1.0, "grad_norm": 1.0 if step < 5 else 1e6}
        doctor.on_log(None, TrainerState(global_step=step), TrainerControl(), logs=logs)
    (line,) = said
    assert line.startswith("step 5: exploding gradients: ")
