"""Schedules are counted in optimizer steps."""

import math

import pytest
import torch

from nlp_finetune.learning.optimizers import make_optimizer
from nlp_finetune.learning.schedules import SCHEDULES, ScheduleFactor, make_scheduler, warmup_steps

ENDS = {
    "linear": 0.0,
    "cosine": 0.0,
    "constant": 1.0,
    "polynomial": 0.0,
    "inverse_sqrt": math.sqrt(10 / 100),
    "one_cycle": 0.0,
    "warmup_stable_decay": 0.0,
    "plateau": 1.0,
}


def rates(name: str, *, steps: int = 100, warmup: float = 0.1, **settings: float) -> list[float]:
    optimizer = make_optimizer(torch.nn.Linear(2, 2), name="sgd", learning_rate=1.0, weight_decay=0.0)
    scheduler = make_scheduler(optimizer, steps, name=name, warmup=warmup, **settings)
    found = [scheduler.get_last_lr()[0]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        found.append(scheduler.get_last_lr()[0])
    return found


def test_every_schedule_is_held_here() -> None:
    assert set(ENDS) == set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_rises_to_its_peak_and_ends_where_it_should(name: str) -> None:
    found = rates(name)
    assert found[10] == max(found) == 1.0
    assert found[:11] == sorted(found[:11])
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[-1] == pytest.approx(ENDS[name], abs=1e-9)


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"one_cycle"}))
def test_the_warm_up_is_linear_from_nothing(name: str) -> None:
    assert rates(name)[:11] == pytest.approx([step / 10 for step in range(11)])


def test_one_cycle_starts_at_a_25th_and_rises_along_a_cosine() -> None:
    found = rates("one_cycle", warmup=0.5)
    assert found[0] == pytest.approx(1 / 25)
    assert found[25] == pytest.approx((1 + 1 / 25) / 2)


def test_a_polynomial_of_power_one_is_linear() -> None:
    assert rates("polynomial", power=1.0) == pytest.approx(rates("linear"))


def test_warmup_stable_decay_holds_the_peak_until_its_last_share() -> None:
    found = rates("warmup_stable_decay", decay=0.2)
    assert set(found[10:81]) == {1.0}
    assert found[90] == pytest.approx(0.5)


def test_a_decay_that_reaches_into_the_warm_up_stays_below_the_peak() -> None:
    assert max(rates("warmup_stable_decay", warmup=0.5, decay=0.9)) < 1.0


def test_warm_up_is_a_share_or_a_number_of_steps() -> None:
    assert (warmup_steps(0.06, 1000), warmup_steps(50, 1000), warmup_steps(0, 1000)) == (60, 50, 0)


def test_a_cut_of_the_rate_is_part_of_the_saved_state() -> None:
    def made() -> torch.optim.lr_scheduler.LambdaLR:
        optimizer = make_optimizer(torch.nn.Linear(2, 2), name="sgd", learning_rate=1.0, weight_decay=0.0)
        scheduler = make_scheduler(optimizer, 100, name="plateau", warmup=0)
        optimizer.step()
        return scheduler

    cut, fresh = made(), made()
    factor = cut.lr_lambdas[0]
    assert isinstance(factor, ScheduleFactor)
    factor.cut = 0.25
    fresh.load_state_dict(cut.state_dict())
    fresh.step()
    assert fresh.get_last_lr()[0] == 0.25
