"""Scores of tokens, and of models that only count them."""

import math

import numpy as np
import pytest

from nlp_finetune.metrics.language import frequencies, language, rivals


def sequence(*ids: int, prompt: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return np.array(ids), np.arange(len(ids)) >= prompt


def test_scores_are_weighted_by_tokens() -> None:
    found = language(np.array([[2.0, 4, 1], [6.0, 1, 0]]))
    assert found == {"loss": 8 / 5, "perplexity": math.exp(8 / 5), "token_accuracy": 1 / 5}


def test_no_token_gives_no_score() -> None:
    assert all(math.isnan(value) for value in language(np.zeros((3, 3))).values())


def test_a_hopeless_loss_still_has_a_finite_perplexity() -> None:
    assert math.isfinite(language(np.array([[1e6, 1, 0]]))["perplexity"])


def test_the_unigram_knows_frequencies_with_one_added_to_each() -> None:
    scores = rivals([sequence(0, 1, 1, 1, 2)], {"test": [sequence(0, 1, 0)]})["test"]["unigram"]
    # Predicted in training: 1 three times, 2 once, of a vocabulary of 3.
    assert scores["loss"] == pytest.approx(-(math.log(4 / 7) + math.log(1 / 7)) / 2)
    assert scores["token_accuracy"] == 0.5


def test_the_bigram_knows_what_follows_what() -> None:
    train = [sequence(*[0, 1, 2] * 20)]
    scores = rivals(train, {"test": [sequence(0, 1, 2, 0, 1)]})["test"]
    assert scores["bigram"]["token_accuracy"] == 1.0
    assert scores["bigram"]["perplexity"] < 1.1 < scores["unigram"]["perplexity"]


def test_the_bigram_is_a_distribution_after_every_token() -> None:
    train = [sequence(0, 1, 0, 2, 2, 1)]
    for before in range(4):
        each = [rivals(train, {"x": [sequence(before, after), sequence(3, 0)]})["x"] for after in range(4)]
        probabilities = [math.exp(-(2 * s["bigram"]["loss"] - _alone(train, 3, 0))) for s in each]
        assert sum(probabilities) == pytest.approx(1)


def _alone(train: list, before: int, after: int) -> float:
    # 3 is never seen in training, so what follows it is the unigram's.
    return rivals(train, {"x": [sequence(before, after)]})["x"]["bigram"]["loss"]


def test_prompts_are_not_predicted() -> None:
    scores = rivals([sequence(1, 1, 2)], {"test": [sequence(1, 1, 2, prompt=2)]})["test"]["unigram"]
    assert scores["loss"] == pytest.approx(-math.log(2 / 5))


def test_frequencies_alone_are_a_rival_of_hidden_tokens() -> None:
    scores = frequencies(np.array([1, 1, 2]), {"test": np.array([1, 2])})["test"]["unigram"]
    assert scores["loss"] == pytest.approx(-(math.log(3 / 6) + math.log(2 / 6)) / 2)
    assert scores["token_accuracy"] == 0.5
