"""Every optimizer moves what trains, and only matrices decay."""

import pytest
import torch

from nlp_finetune.errors import InputError
from nlp_finetune.learning.optimizers import check_available, make_optimizer, parameter_groups


@pytest.mark.parametrize("name", ["adamw", "adam", "rmsprop", "sgd", "adafactor", "lion"])
def test_every_optimizer_moves_the_weights(name: str) -> None:
    model = torch.nn.Linear(2, 2)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, name=name, learning_rate=0.1, weight_decay=0.0)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.weight)


def test_matrices_decay_and_vectors_do_not() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    decayed, spared = parameter_groups(model, weight_decay=0.1, learning_rate=1.0)
    assert (decayed["weight_decay"], [p.ndim for p in decayed["params"]]) == (0.1, [2])
    assert (spared["weight_decay"], [p.ndim for p in spared["params"]]) == (0.0, [1, 1, 1])


def test_frozen_parameters_are_left_out() -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    assert [len(group["params"]) for group in parameter_groups(model, weight_decay=0.1, learning_rate=1.0)] == [1]


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ValueError, match="no parameter"):
        parameter_groups(torch.nn.Linear(2, 2).requires_grad_(False), weight_decay=0.1, learning_rate=1.0)


def test_nesterov_and_plain_momentum_part_after_the_first_step() -> None:
    moved = []
    for nesterov in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 2)
        optimizer = make_optimizer(
            model, name="sgd", learning_rate=0.1, weight_decay=0.0, momentum=0.9, nesterov=nesterov
        )
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).square().sum().backward()
            optimizer.step()
        moved.append(model.weight.detach().clone())
    assert not torch.equal(*moved)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_one_pass_over_the_weights_moves_them_as_one_for_each_operation(name: str) -> None:
    moved = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = torch.nn.Linear(37, 5)
        optimizer = make_optimizer(model, name=name, learning_rate=0.1, weight_decay=0.1, momentum=0.9)
        assert all(group["fused"] for group in optimizer.param_groups)
        for group in optimizer.param_groups:
            group["fused"] = fused
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(3, 37)).square().sum().backward()
            optimizer.step()
        moved.append(model.weight.detach().clone())
    torch.testing.assert_close(*moved, rtol=1e-5, atol=1e-6)


def test_one_pass_can_be_left_out() -> None:
    optimizer = make_optimizer(torch.nn.Linear(2, 2), name="adamw", learning_rate=0.1, weight_decay=0.0, one_pass=False)
    assert not any(group["fused"] for group in optimizer.param_groups)


def test_lion_moves_every_weight_by_the_learning_rate_against_its_sign() -> None:
    model = torch.nn.Linear(3, 2, bias=False)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, name="lion", learning_rate=0.01, weight_decay=0.0, betas=(0.9, 0.99))
    model.weight.grad = torch.tensor([[5.0, -0.001, 0.0], [1.0, 2.0, -3.0]])
    optimizer.step()
    torch.testing.assert_close(before - model.weight, 0.01 * model.weight.grad.sign(), rtol=1e-3, atol=1e-7)


def test_lion_decays_weights_apart_from_the_gradient() -> None:
    model = torch.nn.Linear(2, 2, bias=False)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, name="lion", learning_rate=0.1, weight_decay=0.5)
    model.weight.grad = torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(model.weight, before * 0.95)


@pytest.mark.parametrize("name", ["adafactor", "lion"])
def test_a_saved_state_goes_on_bit_for_bit(name: str) -> None:
    def made() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 4)
        return model, make_optimizer(model, name=name, learning_rate=0.1, weight_decay=0.01)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()

    whole, first = made(), made()
    for _ in range(4):
        step(*whole)
    for _ in range(2):
        step(*first)
    second = made()
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(first[1].state_dict())
    for _ in range(2):
        step(*second)
    assert torch.equal(whole[0].weight, second[0].weight)


def test_eight_bit_adamw_is_refused_without_a_gpu() -> None:
    with pytest.raises(InputError, match="needs a GPU"):
        check_available("adamw_8bit", torch.device("cpu"))
