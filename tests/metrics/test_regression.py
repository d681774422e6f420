"""The scores of numbers are scipy's and scikit-learn's, and undefined ones are never hidden."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from nlp_finetune.metrics.regression import regression


@pytest.mark.parametrize("seed", range(10))
def test_scores_equal_scipys_and_scikit_learns(seed: int) -> None:
    random = np.random.default_rng(seed)
    targets = random.integers(0, 6, 50) / 2.0  # with ties
    predictions = (targets + random.normal(size=50)).astype(np.float32)
    assert regression(predictions, targets) == pytest.approx(
        {
            "pearson": stats.pearsonr(predictions.astype(float), targets).statistic,
            "spearman": stats.spearmanr(predictions, targets).statistic,
            "rmse": sk.root_mean_squared_error(targets, predictions),
            "mae": sk.mean_absolute_error(targets, predictions),
        },
        abs=1e-9,
    )


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e30])
def test_a_constant_correlates_with_nothing(constant: float) -> None:
    scores = regression(np.full(7, constant, dtype=np.float32), np.arange(7))
    assert (scores["pearson"], scores["spearman"]) == (0.0, 0.0)
    assert scores["rmse"] > 0


def test_one_row_is_a_constant() -> None:
    assert regression(np.array([1.0]), np.array([3.0])) == {
        "pearson": 0.0,
        "spearman": 0.0,
        "rmse": 2.0,
        "mae": 2.0,
    }


def test_tiny_and_huge_numbers_correlate_as_well() -> None:
    line = np.arange(5.0)
    assert regression(line * 1e-200, line)["pearson"] == pytest.approx(1)
    assert regression(line * -1e150, line)["pearson"] == pytest.approx(-1)


@pytest.mark.parametrize("where", ["predictions", "targets"])
@pytest.mark.parametrize("other", [np.arange(4.0), np.ones(4)])
def test_one_number_that_is_nan_makes_every_score_nan(where: str, other: np.ndarray) -> None:
    arrays = {"predictions": other.copy(), "targets": other.copy()}
    arrays[where][2] = np.nan
    assert all(np.isnan(value) for value in regression(**arrays).values())


def test_an_infinite_prediction_is_not_hidden() -> None:
    scores = regression(np.array([0.0, np.inf, 2.0]), np.arange(3.0))
    assert np.isnan(scores["pearson"])
    assert scores["rmse"] == np.inf


def test_a_column_and_a_flat_array_are_the_same() -> None:
    predictions, targets = np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 3.0, 3.0])
    assert regression(predictions, targets) == regression(predictions[:, 0], targets)


def test_numbers_of_rows_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="2 predictions for 3 targets"):
        regression(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="no rows"):
        regression(np.zeros(0), np.zeros(0))
