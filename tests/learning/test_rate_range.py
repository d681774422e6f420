"""What a learning-rate range test suggests, on losses whose best rates are known."""

from __future__ import annotations

import math

import pytest

from nlp_finetune.learning.rate_range import growing_rate, has_diverged, rises_at, smoothed, suggest


def descend(curvature: float, *, steps: int = 200, low: float = 1e-6, high: float = 100.0) -> tuple[list, list]:
    """Plain gradient descent on `curvature / 2 x^2` while the rate grows: it diverges above 2 / curvature."""
    x, rates, losses = 1.0, [], []
    for step in range(steps):
        rate = growing_rate(step, steps=steps, low=low, high=high)
        rates.append(rate)
        losses.append(0.1 + curvature / 2 * x * x)
        if has_diverged(losses):
            break
        x -= rate * curvature * x
    return rates, losses


def test_the_rate_grows_in_equal_ratios_between_its_ends() -> None:
    rates = [growing_rate(step, steps=5, low=1e-4, high=1.0) for step in range(5)]
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])


@pytest.mark.parametrize("curvature", [0.1, 1.0, 50.0])
def test_the_suggestion_descends_and_is_far_from_where_it_diverges(curvature: float) -> None:
    rates, losses = descend(curvature)
    found = suggest(rates, losses)
    assert found is not None
    assert 1e-3 / curvature < found < 1 / curvature


def test_a_steeper_loss_wants_a_smaller_rate() -> None:
    flat, steep = suggest(*descend(1.0)), suggest(*descend(100.0))
    assert flat is not None
    assert steep is not None
    assert steep < flat / 10


def test_the_test_ends_where_the_loss_has_diverged() -> None:
    rates, losses = descend(1.0)
    assert len(losses) < 200
    assert rates[-1] > 2.0
    assert has_diverged([1.0, math.nan])


def test_nothing_is_suggested_where_the_loss_does_not_fall() -> None:
    rates = [growing_rate(step, steps=50, low=1e-7, high=1.0) for step in range(50)]
    assert suggest(rates, [1.0 + 0.001 * (-1) ** step for step in range(50)]) is None
    assert suggest(rates, [1.0 + step for step in range(50)]) is None
    assert suggest(rates[:5], [1.0, 0.5, 0.2, 0.1, math.nan]) is None


def test_running_means_of_a_constant_are_that_constant() -> None:
    assert smoothed([3.0] * 4) == pytest.approx([3.0] * 4)


def test_where_the_loss_rises_bounds_the_rate_though_it_never_fell() -> None:
    rates = [growing_rate(step, steps=50, low=1e-7, high=1.0) for step in range(50)]
    losses = [1.0] * 30 + [5.0] * 20
    assert suggest(rates, losses) is None
    assert rises_at(rates, losses) == pytest.approx(rates[30])
    assert rises_at(rates, [1.0] * 50) is None
