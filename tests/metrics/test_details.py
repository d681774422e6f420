"""What stands behind a score: rows, lengths, classes, confidence, mistakes."""

import itertools
import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from nlp_finetune.metrics import answer_details, answers, details, entities, entity_details
from nlp_finetune.metrics.calibration import calibration
from nlp_finetune.metrics.language import language

NAMES = ["a", "b", "c"]


@pytest.fixture
def judged() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `[200, 3]` and labels that they follow most of the time."""
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([0.5] * 3, size=200)
    labels = np.array([random.choice(3, p=p) for p in probabilities])
    return probabilities, labels


def text(position: int) -> str:
    return f"text {position}"


def test_a_model_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    confidence = np.array([0.75] * 4 + [0.25] * 4)
    right = np.array([1, 1, 1, 0, 1, 0, 0, 0])
    found = calibration(confidence, right)
    assert found["ece"] == pytest.approx(0)
    assert [(b["rows"], b["accuracy"]) for b in found["bins"]] == [(4, 0.25), (4, 0.75)]


def test_a_model_that_is_always_sure_and_half_right_has_an_error_of_one_half() -> None:
    found = calibration(np.ones(10), np.arange(10) % 2 == 0)
    assert found["ece"] == pytest.approx(0.5)
    assert found["bins"] == [{"low": 0.9, "high": 1.0, "rows": 10, "confidence": 1.0, "accuracy": 0.5}]


def test_calibration_drawn_from_its_own_probabilities_is_good(judged: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = judged
    found = calibration(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)
    assert found["ece"] < 0.1
    assert sum(b["rows"] for b in found["bins"]) == 200


@pytest.mark.parametrize("confidence", [np.array([np.nan]), np.zeros(0), np.zeros((2, 1))])
def test_calibration_of_nothing_is_refused(confidence: np.ndarray) -> None:
    with pytest.raises(ValueError, match="confidence"):
        calibration(confidence, np.zeros(len(confidence)))


def test_row_scores_make_up_the_accuracy(judged: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = judged
    right = probabilities.argmax(axis=1) == labels
    assert details.row_scores("accuracy", right).score() == pytest.approx(right.mean())


def test_row_scores_make_up_the_micro_f1_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    truth, chosen = random.random((2, 50, 4)) < 0.4
    hits = (truth & chosen).sum(axis=1)
    scores = details.row_scores("f1_micro", 2 * hits, truth.sum(axis=1) + chosen.sum(axis=1))
    assert scores.score() == pytest.approx(f1_score(truth, chosen, average="micro"))


def test_row_scores_make_up_the_entity_f1() -> None:
    true = [[1, 2, 0, 3], [0, 0], [1, 1]]
    predicted = [[1, 2, 0, 0], [0, 0], [3, 1]]
    scores = entity_details.scores_of_rows(true, predicted, 2)
    assert scores.score() == pytest.approx(entities.scores(true, predicted, ["X", "Y"])["f1"])
    assert scores.weights[1] == 0


def test_groups_by_length_hold_every_row_once_and_average_to_the_score() -> None:
    random = np.random.default_rng(2)
    scores = details.row_scores("accuracy", random.random(97) < 0.6)
    lengths = random.integers(3, 60, size=97).tolist()
    groups = details.by_length(scores, lengths)
    assert sum(g["rows"] for g in groups) == 97
    assert sum(g["rows"] * g["accuracy"] for g in groups) / 97 == pytest.approx(scores.score())
    assert all(before["high"] < after["low"] for before, after in itertools.pairwise(groups))
    assert groups[0]["low"] == min(lengths)
    assert groups[-1]["high"] == max(lengths)


@pytest.mark.parametrize("lengths", [[], [7], [7, 7, 7], [1, 2]])
def test_groups_by_length_take_few_rows_and_equal_lengths(lengths: list[int]) -> None:
    groups = details.by_length(details.row_scores("f1", np.ones(len(lengths))), lengths)
    assert sum(g["rows"] for g in groups) == len(lengths)


def test_mistakes_are_wrong_rows_the_most_confident_first(judged: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = judged
    found = details.single_label(probabilities, labels, NAMES, text=text, rows=range(1, 201))
    scores = [one["score"] for one in found["mistakes"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == details.MOST_MISTAKES
    assert all(one["label"] != one["predicted"] for one in found["mistakes"])
    assert all(one["text"] == text(one["row"] - 1) for one in found["mistakes"])
    assert np.trace(found["confusion"]["matrix"]) == (probabilities.argmax(axis=1) == labels).sum()
    json.dumps(found, allow_nan=False)


def test_a_multi_label_mistake_names_both_sets_and_the_surest_wrong_decision() -> None:
    probabilities = np.array([[0.9, 0.2, 0.1], [0.9, 0.8, 0.3]])
    labels = np.array([[1, 0, 0], [0, 1, 1]])
    found = details.multi_label(probabilities, labels, NAMES, 0.5, text=text, rows=[5, 6])
    assert found["mistakes"] == [
        {"row": 6, "text": "text 1", "label": "b + c", "predicted": "a + b", "score": pytest.approx(0.9)}
    ]


def test_a_wrong_choice_is_named_by_the_texts_of_its_own_options() -> None:
    shares = [np.array([0.7, 0.3]), np.array([0.1, 0.8, 0.1]), np.array([0.4, 0.6])]
    options = [["a knife", "a hat"], ["red", "blue", "green"], ["yes", "no"]]
    found = details.choices(shares, [0, 2, 0], options, text=text, rows=[1, 2, 3])
    assert [(m["row"], m["label"], m["predicted"]) for m in found["mistakes"]] == [
        (2, "green", "blue"),
        (3, "yes", "no"),
    ]
    assert sum(b["rows"] for b in found["calibration"]["bins"]) == 3


def test_regression_names_the_largest_errors() -> None:
    found = details.regression(np.array([1.0, 4.0, 2.5]), np.array([1.0, 1.0, 2.0]), text=text, rows=[1, 2, 3])
    assert [(one["row"], one["score"]) for one in found["mistakes"]] == [(2, 3.0), (3, 0.5)]
    assert len(found["points"]) == 3


def test_the_hardest_texts_are_those_of_the_highest_loss_a_token() -> None:
    sums = np.array([[10.0, 10, 5], [30.0, 10, 1], [9.0, 1, 0]])
    found = details.language(sums, text=text, rows=[1, 2, 3])
    assert [one["row"] for one in found["hardest"]] == [2, 1]
    assert found["hardest"][0]["score"] == pytest.approx(language(sums[1:2])["loss"])


def test_long_texts_are_cut() -> None:
    cut = details.shortened("word " * 100)
    assert len(cut) <= details.LONGEST_TEXT
    assert cut.endswith("…")


def test_entity_details_say_what_was_confused_missed_and_invented() -> None:
    types, words = ["LOC", "PER"], [["Ada", "Byron", "in", "Rome"], ["Go", "home", "Bob"]]
    true, predicted = [[3, 4, 0, 1], [0, 0, 3]], [[1, 2, 0, 1], [1, 0, 0]]
    sure = [np.full(4, 0.9), np.array([0.6, 1.0, 0.8])]
    found = entity_details.details(true, predicted, sure, types, words=words, rows=[1, 2])
    said = {(m["row"], m["label"], m["predicted"]) for m in found["mistakes"]}
    assert said == {
        (1, "PER: Ada Byron", "LOC: Ada Byron"),
        (2, "(no entity)", "LOC: Go"),
        (2, "PER: Bob", "(no entity)"),
    }
    assert found["confusion"]["labels"] == ["O", "LOC", "PER"]
    assert found["confusion"]["matrix"] == [[2, 1, 0], [0, 1, 0], [1, 2, 0]]
    scores = entities.scores(true, predicted, types)
    for one in found["classes"]:
        assert one["f1"] == pytest.approx(scores[f"f1_{one['label']}"])
        assert one["precision"] == pytest.approx(scores[f"precision_{one['label']}"])
        assert one["recall"] == pytest.approx(scores[f"recall_{one['label']}"])


def test_answer_details_split_questions_by_kind() -> None:
    texts, golds = ["at noon", "", "a fox"], [["at noon"], ["the ferry"], []]
    scores = answers.score(texts, golds)
    found = answer_details.details(
        texts, [0.9, 0.7, 0.8], scores, questions=["When?", "What?", "Who?"], golds=golds, rows=[1, 2, 3]
    )
    assert [(g["label"], g["rows"], g["f1"]) for g in found["groups"]] == [
        ("answerable", 2, 0.5),
        ("unanswerable", 1, 0.0),
    ]
    assert [m["row"] for m in found["mistakes"]] == [3, 2]
    assert found["confusion"]["matrix"] == [[1, 1], [1, 0]]
