"""Schedules are counted in optimizer steps; only matrices decay."""

import pytest
import torch

from nlp_finetune.learning.optimizers import make_optimizer, make_scheduler, parameter_groups, warmup_steps


@pytest.mark.parametrize("name", ["adamw", "adam", "rmsprop", "sgd"])
def test_every_optimizer_moves_the_weights(name: str) -> None:
    model = torch.nn.Linear(2, 2)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, name=name, learning_rate=0.1, weight_decay=0.0)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.weight)


def test_matrices_decay_and_vectors_do_not() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    decayed, spared = parameter_groups(model, weight_decay=0.1)
    assert (decayed["weight_decay"], [p.ndim for p in decayed["params"]]) == (0.1, [2])
    assert (spared["weight_decay"], [p.ndim for p in spared["params"]]) == (0.0, [1, 1, 1])


def test_frozen_parameters_are_left_out() -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    assert [len(group["params"]) for group in parameter_groups(model, weight_decay=0.1)] == [1]


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ValueError, match="no parameter"):
        parameter_groups(torch.nn.Linear(2, 2).requires_grad_(False), weight_decay=0.1)


@pytest.mark.parametrize(("name", "end"), [("linear", 0.0), ("cosine", 0.0), ("constant", 1.0)])
def test_the_rate_rises_to_its_peak_and_ends_where_it_should(name: str, end: float) -> None:
    optimizer = make_optimizer(torch.nn.Linear(2, 2), name="sgd", learning_rate=1.0, weight_decay=0.0)
    scheduler = make_scheduler(optimizer, 100, name=name, warmup=0.1)
    rates = []
    for _ in range(100):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[0] == 0.0
    assert rates[10] == max(rates) == 1.0
    assert rates[5] == pytest.approx(0.5)
    assert scheduler.get_last_lr()[0] == pytest.approx(end)


def test_warm_up_is_a_share_or_a_number_of_steps() -> None:
    assert (warmup_steps(0.06, 1000), warmup_steps(50, 1000), warmup_steps(0, 1000)) == (60, 50, 0)
