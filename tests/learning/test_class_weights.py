"""Weights of classes, counted from the training rows or given by name."""

import numpy as np
import pytest

from nlp_finetune.errors import InputError
from nlp_finetune.learning.class_weights import balanced, by_name, count_classes, describe, prior
from nlp_finetune.learning.losses import IGNORED


def test_rows_tokens_and_several_classes_a_row_are_counted() -> None:
    counts, total = count_classes([0, 2, 2], 3)
    assert (counts.tolist(), total) == ([1, 0, 2], 3)
    counts, total = count_classes([[IGNORED, 0, 1], [1, IGNORED, 1]], 2)
    assert (counts.tolist(), total) == ([1, 3], 4)
    counts, total = count_classes([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], 2)
    assert (counts.tolist(), total) == ([2, 1], 3)


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 70 + [1] * 25 + [2] * 5)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced(*count_classes(labels, 3), positives=False) == pytest.approx(list(expected))


def test_the_mean_balanced_weight_of_the_training_items_is_one() -> None:
    labels = [0] * 90 + [2] * 10  # class 1 does not occur
    weights = balanced(*count_classes(labels, 3), positives=False)
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1.0)
    assert weights[1] == 1.0


def test_positive_rows_are_weighed_against_negative_ones() -> None:
    labels = [[1.0, 1.0]] + [[0.0, 1.0]] * 9
    assert balanced(*count_classes(labels, 2), positives=True) == [9.0, 1.0]


def test_classes_without_a_given_weight_count_once() -> None:
    assert by_name({"spam": 5.0}, ["ham", "spam"]) == [1.0, 5.0]


def test_a_name_that_is_no_class_is_explained() -> None:
    with pytest.raises(InputError, match="no class is called 'spm'; did you mean 'spam'"):
        by_name({"spm": 5.0}, ["ham", "spam"])


def test_weights_that_learn_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="all weights are 0"):
        by_name({"ham": 0.0, "spam": 0.0}, ["ham", "spam"])


def test_the_line_shows_the_heaviest_classes_first() -> None:
    assert describe([0.5, 2.0, 1.0], ["a", "b", "c"], most=2) == "b 2, c 1 and 1 more"


def test_outputs_that_start_at_the_prior_predict_how_often_each_class_occurs() -> None:
    labels = [0] * 970 + [1] * 29
    start = np.exp(prior(*count_classes(labels, 3), positives=False))
    assert start == pytest.approx([0.970, 0.029, 0.001], abs=0.001)
    assert start.sum() == pytest.approx(1)
    several = [[1.0, 0.0, 1.0]] * 200 + [[0.0, 0.0, 1.0]] * 800
    odds = np.exp(prior(*count_classes(several, 3), positives=True))
    assert odds / (1 + odds) == pytest.approx([0.2, 0, 1], abs=0.002)
