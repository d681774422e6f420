"""The numpy scores are scikit-learn's, and can be resampled."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn import metrics as sk

from nlp_finetune.metrics.classification import (
    chosen_class,
    confusion,
    multi_label,
    per_class,
    single_label,
    tune_threshold,
    tune_thresholds,
)
from nlp_finetune.metrics.intervals import bootstrap


def make_rows(seed: int, *, rows: int, classes: int, present: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels; only the first `present` classes occur among the labels."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(classes, 0.4), size=rows).astype(np.float32)
    return probabilities, random.integers(0, present, rows)


def make_sets(seed: int, *, rows: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that tell something about labels, coarse enough to have ties."""
    random = np.random.default_rng(seed)
    labels = (random.random((rows, classes)) < 0.3).astype(np.float32)
    probabilities = np.clip(0.5 * labels + random.random((rows, classes)) * 0.6 - 0.1, 0, 1).round(2)
    return probabilities.astype(np.float32), labels


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("rows", "classes", "present"), [(1, 2, 2), (7, 3, 1), (50, 2, 2), (200, 9, 5)])
def test_single_label_scores_equal_scikit_learns(seed: int, rows: int, classes: int, present: int) -> None:
    probabilities, labels = make_rows(seed, rows=rows, classes=classes, present=present)
    predicted = probabilities.argmax(1)
    assert single_label(probabilities, labels) == pytest.approx(
        {
            "accuracy": sk.accuracy_score(labels, predicted),
            "macro_f1": sk.f1_score(labels, predicted, average="macro", zero_division=0),
            "mcc": sk.matthews_corrcoef(labels, predicted) if rows > 1 else 0.0,
        },
        abs=1e-12,
    )


@pytest.mark.parametrize("seed", range(20))
def test_multi_label_scores_equal_scikit_learns(seed: int) -> None:
    probabilities, labels = make_sets(seed)
    labels[:, 1] = 0
    thresholds = [0.5, 0.3, 0.7, 2.0]
    chosen = (probabilities >= np.array(thresholds)).astype(int)
    assert multi_label(probabilities, labels, thresholds) == pytest.approx(
        {
            "f1_micro": sk.f1_score(labels, chosen, average="micro", zero_division=0),
            "f1_macro": sk.f1_score(labels, chosen, average="macro", zero_division=0),
            "accuracy": sk.accuracy_score(labels, chosen),
            "mcc": sk.matthews_corrcoef(labels.ravel(), chosen.ravel()),
        },
        abs=1e-12,
    )


def test_scores_are_plain_floats() -> None:
    scores = {
        **single_label(*make_rows(0, rows=9, classes=3, present=3)),
        **multi_label(*make_sets(0)),
    }
    assert {type(value) for value in scores.values()} == {float}


def test_mcc_stays_right_where_products_of_counts_outgrow_int64() -> None:
    truth = np.tile([0, 1], 2_000)
    probabilities = np.eye(2)[truth]
    probabilities[0] = [0, 1]
    repeated = np.repeat(probabilities, 500, axis=0), np.repeat(truth, 500)
    assert single_label(*repeated)["mcc"] == pytest.approx(single_label(probabilities, truth)["mcc"])


@pytest.mark.parametrize("score", [single_label, multi_label])
def test_one_probability_that_is_nan_makes_every_score_nan(score: object) -> None:
    probabilities, labels = make_sets(0)
    probabilities[3, 1] = np.nan
    truth = labels if score is multi_label else labels[:, 0]
    assert all(np.isnan(value) for value in score(probabilities, truth).values())  # type: ignore[operator]


def test_an_interval_from_a_thousand_resamples_is_around_the_score() -> None:
    probabilities, labels = make_rows(0, rows=1000, classes=6, present=6)
    low, high = bootstrap(lambda p: single_label(probabilities[p], labels[p])["macro_f1"], 1000)
    assert low < single_label(probabilities, labels)["macro_f1"] < high


@pytest.mark.parametrize("seed", range(15))
def test_tuned_thresholds_reach_the_best_f1_that_any_threshold_reaches(seed: int) -> None:
    probabilities, labels = make_sets(seed)
    tuned = tune_thresholds(probabilities, labels)
    for k, threshold in enumerate(tuned):
        column, truth = probabilities[:, k], labels[:, k]
        best = max(sk.f1_score(truth, column >= t, zero_division=0) for t in np.unique(column))
        assert sk.f1_score(truth, column >= threshold, zero_division=0) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_tuned_for_the_micro_average_reach_the_best_that_any_thresholds_reach(seed: int) -> None:
    probabilities, labels = make_sets(seed, rows=12, classes=3)
    tuned = tune_thresholds(probabilities, labels, metric="f1_micro")
    cuts = [[*np.unique(column), 1.1] for column in probabilities.T]
    best = max(multi_label(probabilities, labels, cut)["f1_micro"] for cut in itertools.product(*cuts))
    assert multi_label(probabilities, labels, tuned)["f1_micro"] == pytest.approx(best)


def test_a_class_that_nothing_is_known_of_does_not_ruin_the_micro_average() -> None:
    random = np.random.default_rng(0)
    known = (random.random(200) < 0.3).astype(float)
    unknown = (random.random(200) < 0.05).astype(float)
    probabilities = np.stack([0.8 * known + 0.1, random.random(200) * 0.1], axis=1)
    labels = np.stack([known, unknown], axis=1)
    by_class = multi_label(probabilities, labels, tune_thresholds(probabilities, labels))
    together = multi_label(probabilities, labels, tune_thresholds(probabilities, labels, metric="f1_micro"))
    assert together["f1_micro"] > by_class["f1_micro"] + 0.1


def test_a_threshold_stays_at_one_half_where_nothing_better_is_known() -> None:
    probabilities = np.array([[0.9, 0.2], [0.8, 0.3], [0.1, 0.1]])
    labels = np.array([[1, 0], [1, 0], [0, 0]])
    assert tune_thresholds(probabilities, labels) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("column", "expected"),
    [([0.95, 0.9, 0.8, 0.3, 0.1], 0.2), ([0.7, 0.6, 0.55, 0.3, 0.1], 0.65)],
)
def test_of_equally_good_thresholds_the_one_nearest_one_half_wins(column: list[float], expected: float) -> None:
    # F1 is 2/3 for the cut after the first row (one hit of one) and after the fourth (two of four).
    labels = np.array([[1], [0], [0], [1], [0]])
    assert tune_thresholds(np.array([column]).T, labels)[0] == pytest.approx(expected)


def test_a_threshold_leaves_room_for_rounding_on_both_sides() -> None:
    probabilities = np.array([[0.30], [0.28], [0.10], [0.05]], dtype=np.float32)
    (threshold,) = tune_thresholds(probabilities, np.array([[1], [1], [0], [0]]))
    assert threshold == pytest.approx(0.19)


def test_a_class_that_every_row_has_gets_a_threshold_below_all_probabilities() -> None:
    (threshold,) = tune_thresholds(np.array([[0.2], [0.3]]), np.array([[1], [1]]))
    assert 0 < threshold < 0.2


def test_neighbouring_floats_are_still_told_apart() -> None:
    upper = 0.3
    lower = float(np.nextafter(upper, 0))
    (threshold,) = tune_thresholds(np.array([[upper], [lower]]), np.array([[1], [0]]))
    assert lower < threshold <= upper


@pytest.mark.parametrize("many", [False, True])
def test_per_class_scores_equal_scikit_learns(many: bool) -> None:
    if many:
        probabilities, labels = make_sets(3)
        truth, predicted = labels, (probabilities >= 0.5).astype(int)
    else:
        probabilities, labels = make_rows(3, rows=80, classes=4, present=3)
        truth, predicted = labels, probabilities.argmax(1)
    expected = sk.precision_recall_fscore_support(truth, predicted, labels=range(4), zero_division=0)
    scores = per_class(probabilities, labels, ["a", "b", "c", "d"])
    assert [row["name"] for row in scores] == ["a", "b", "c", "d"]
    for column, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [row[column] for row in scores] == pytest.approx(list(values))


def test_per_class_scores_of_nan_are_nan() -> None:
    probabilities, labels = make_sets(0)
    probabilities[0, 0] = np.nan
    assert np.isnan(per_class(probabilities, labels, list("abcd"))[2]["f1"])


def test_confusion_counts_true_classes_down_and_predicted_ones_across() -> None:
    probabilities, labels = make_rows(5, rows=80, classes=4, present=3)
    expected = sk.confusion_matrix(labels, probabilities.argmax(1), labels=range(4))
    assert (confusion(probabilities, labels) == expected).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1]), "do not fit"),
        (np.array([0, 1, 3]), "classes from 0 to 2"),
        (np.array([0, -100, 1]), "-100"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        single_label(np.eye(3), labels)


def test_no_rows_and_the_wrong_number_of_thresholds_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        single_label(np.zeros((0, 2)), np.zeros(0, dtype=int))
    with pytest.raises(ValueError, match="no rows"):
        multi_label(np.zeros((0, 2)), np.zeros((0, 2)))
    with pytest.raises(ValueError, match="2 thresholds for 3 classes"):
        multi_label(np.eye(3), np.eye(3), [0.5, 0.5])


def test_nan_cannot_be_counted_or_tuned() -> None:
    with pytest.raises(ValueError, match="NaN"):
        confusion(np.array([[np.nan, 0.5]]), np.array([0]))
    with pytest.raises(ValueError, match="NaN"):
        tune_thresholds(np.array([[np.nan, 0.5]]), np.array([[0, 1]]))


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "mcc"])
@pytest.mark.parametrize("seed", range(4))
def test_the_tuned_threshold_is_the_best_of_all(metric: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    second = np.round(random.random(40), 2)
    labels = (random.random(40) < 0.2 + 0.5 * second).astype(int)
    pairs = np.stack([1 - second, second], axis=1)
    tuned = single_label(pairs, labels, tune_threshold(pairs, labels, metric=metric))[metric]
    every = [single_label(pairs, labels, threshold)[metric] for threshold in np.linspace(0, 1.001, 2003)]
    assert tuned == pytest.approx(max(every))
    assert tuned >= single_label(pairs, labels)[metric]


def test_where_no_threshold_is_better_it_is_one_half() -> None:
    pairs = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    assert tune_threshold(pairs, np.array([0, 1, 0]), metric="accuracy") == 0.5
    assert tune_threshold(pairs, np.array([1, 1, 1]), metric="accuracy") == 0.5


def test_a_threshold_of_one_half_is_the_likelier_class() -> None:
    second = np.random.default_rng(0).random(50)
    pairs = np.stack([1 - second, second], axis=1)
    assert (chosen_class(pairs, 0.5) == chosen_class(pairs)).all()
