"""An interval covers the truth as often as it says, and is the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from nlp_finetune.metrics.intervals import bootstrap


def test_a_95_percent_interval_covers_the_truth_about_95_times_in_100() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for seed in range(300):
        hits = random.random(200) < 0.8
        low, high = bootstrap(lambda p, hits=hits: hits[p].mean(), 200, resamples=300, seed=seed)
        covered += low <= 0.8 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_a_higher_level_is_wider() -> None:
    values = np.random.default_rng(0).normal(size=100)
    narrow, wide = (bootstrap(lambda p: values[p].mean(), 100, level=level) for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_width_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap(lambda p: values[p].mean(), 400, resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)


def test_a_seed_fixes_the_interval() -> None:
    values = np.arange(50.0)
    first, again, other = (bootstrap(lambda p: values[p].mean(), 50, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_the_metric_gets_as_many_positions_as_there_are_rows() -> None:
    seen = []
    bootstrap(lambda p: seen.append((len(p), p.min() >= 0, p.max() < 9)) or 0.0, 9, resamples=20)
    assert set(seen) == {(9, True, True)}


def test_nan_in_a_resample_is_not_hidden() -> None:
    assert np.isnan(bootstrap(lambda p: float("nan") if 0 in p else 1.0, 5)).all()


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"resamples": 0}, {"level": 1.0}, {"level": 0.0}])
def test_what_gives_no_interval_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no interval"):
        bootstrap(lambda p: 0.0, **{"rows": 5, **wrong})  # type: ignore[arg-type]
