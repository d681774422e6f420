"""Entity scores: seqeval's, from counts that a bootstrap can add up."""

import numpy as np
import pytest
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2

from nlp_finetune.data import tags as iob2
from nlp_finetune.metrics import entities

TYPES = ["LOC", "X-Y-", "a_b"]


def drawn(seed: int, documents: int = 40) -> tuple[list[list[int]], list[list[int]]]:
    random = np.random.default_rng(seed)
    true, predicted = [], []
    for size in random.integers(1, 12, documents):
        tags = random.choice(7, size, p=[0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
        noisy = np.where(random.random(size) < 0.3, random.integers(0, 7, size), tags)
        true.append(iob2.repaired(tags.tolist()))
        predicted.append(iob2.repaired(noisy.tolist()))
    return true, predicted


@pytest.mark.parametrize("seed", [0, 1])
def test_scores_are_those_of_seqeval(seed: int) -> None:
    true, predicted = drawn(seed)
    plain = ["O", "B-0", "I-0", "B-1", "I-1", "B-2", "I-2"]
    both = [[[plain[tag] for tag in tags] for tags in part] for part in (true, predicted)]
    expected = precision_recall_fscore_support(*both, scheme=IOB2, average="micro", zero_division=0)
    found = entities.scores(true, predicted, TYPES)
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(list(expected[:3]))
    by_type = precision_recall_fscore_support(*both, scheme=IOB2, average=None, zero_division=0)[2]
    assert [found[f"f1_{kind}"] for kind in TYPES] == pytest.approx(list(by_type))
    assert set(found) == set(entities.names(TYPES))


@pytest.mark.parametrize("name", entities.names(TYPES))
def test_the_resampled_metric_of_all_documents_is_the_metric(name: str) -> None:
    true, predicted = drawn(2)
    metric = entities.resampled(name, true, predicted, TYPES)
    assert metric(np.arange(len(true))) == pytest.approx(entities.scores(true, predicted, TYPES)[name])


@pytest.mark.parametrize("name", ["f1", "f1_macro", "accuracy", "recall_LOC"])
def test_a_resample_counts_documents_as_often_as_they_are_drawn(name: str) -> None:
    true, predicted = drawn(3)
    positions = np.random.default_rng(0).integers(0, len(true), len(true))
    chosen = [[part[i] for i in positions] for part in (true, predicted)]
    expected = entities.scores(*chosen, TYPES)[name]
    assert entities.resampled(name, true, predicted, TYPES)(positions) == pytest.approx(expected)


def test_a_wrong_end_or_type_is_no_hit() -> None:
    found = entities.scores([[1, 2, 0, 3]], [[1, 0, 0, 5]], TYPES)
    assert (found["f1"], found["accuracy"]) == (0.0, 0.5)


def test_without_entities_every_entity_score_is_zero_and_words_still_count() -> None:
    found = entities.scores([[0, 0]], [[0, 0]], TYPES)
    assert found.pop("accuracy") == 1.0
    assert set(found.values()) == {0.0}
    assert entities.resampled("f1_macro", [[0, 0]], [[0, 0]], TYPES)(np.array([0])) == 0.0


def test_f1_macro_is_over_the_types_that_occur() -> None:
    found = entities.scores([[1, 0, 3]], [[1, 0, 0]], TYPES)
    assert found["f1_macro"] == pytest.approx(0.5)
    assert found["f1_a_b"] == 0.0


def test_the_dictionary_finds_the_longest_known_phrase() -> None:
    words = [["New", "York", "is", "big"], ["York", "is", "old"]]
    tags = [[1, 2, 0, 0], [1, 0, 0]]
    unseen = [["In", "New", "York", "or", "York"]]
    assert entities.dictionary(words, tags, unseen, len(TYPES)) == [[0, 1, 2, 0, 1]]


def test_the_dictionary_leaves_out_what_is_mostly_no_entity() -> None:
    words = [["May", "came"], ["May", "we"], ["May", "I"]]
    assert entities.dictionary(words, [[1, 0], [0, 0], [0, 0]], [["May"]], len(TYPES)) == [[0]]
