"""The rivals learn what words can tell, and survive data that tell nothing."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from nlp_finetune.metrics import baselines

GOOD, BAD = (
    ["good fine soup", "fine bread", "a good day", "good"],
    ["bad cold soup", "stale bread", "a bad day", "cold"],
)
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0])
CJK_GOOD, CJK_BAD = (
    ["味道很好", "房间不错很好", "很好看", "真的很好"],
    ["味道很差", "房间太差", "难看很差", "真的太差"],
)


def read_tsv(path: Path) -> tuple[list[str], np.ndarray]:
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [text for text, _ in lines], np.array([int(label) for _, label in lines])


def test_majority_gives_every_row_the_class_shares() -> None:
    assert baselines.majority(np.array([0, 2, 2, 2]), 4, 2).tolist() == [[0.25, 0, 0.75, 0]] * 2
    assert baselines.majority(np.array([[1, 0], [1, 1]]), 2, 1).tolist() == [[1.0, 0.5]]


def test_the_mean_is_given_to_every_row() -> None:
    assert baselines.mean_regression(np.array([1.0, 2.0, 6.0]), 2).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("train", "texts"),
    [(GOOD + BAD, ["good bread", "cold stale day"]), (CJK_GOOD + CJK_BAD, ["早餐很好", "早餐太差"])],
)
def test_tfidf_learns_words_and_where_there_are_no_spaces_characters(train: list[str], texts: list[str]) -> None:
    probabilities = baselines.tfidf(train, LABELS, texts, classes=2)
    assert probabilities.argmax(axis=1).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("texts", "by_character"),
    [(CJK_GOOD, True), (GOOD, False), (["カレーは うまい"], True), (["맛이 좋다"], False), ([""], False)],
)
def test_characters_are_used_where_words_are_not_spaced(texts: list[str], by_character: bool) -> None:
    assert baselines._is_cjk(texts) is by_character


def test_tfidf_gives_probabilities_of_all_classes_with_none_for_those_never_seen() -> None:
    labels = np.array([3, 3, 3, 3, 1, 1, 0, 0])
    probabilities = baselines.tfidf(GOOD + BAD, labels, ["good", "unknown"], classes=5)
    assert probabilities.shape == (2, 5)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert (probabilities[:, [2, 4]] == 0).all()
    assert (probabilities[:, [0, 1, 3]] > 0).all()


@pytest.mark.parametrize(
    ("texts", "labels"),
    [(["good", "fine"], [1, 1]), (["one"], [1]), (["!!", "??"], [1, 1]), (["", " "], [1, 1])],
)
def test_where_nothing_can_be_learned_tfidf_gives_the_class_shares(texts: list[str], labels: list[int]) -> None:
    assert baselines.tfidf(texts, np.array(labels), ["new"], classes=3).tolist() == [[0, 1, 0]]


def test_words_that_never_recur_in_many_rows_leave_the_class_shares() -> None:
    texts, labels = [f"word{i}" for i in range(1200)], np.arange(1200) % 3
    probabilities = baselines.tfidf(texts, labels, ["new"], classes=3)
    assert probabilities.tolist()[0] == pytest.approx([1 / 3] * 3)


def test_tfidf_learns_each_class_of_a_multi_label_problem_by_itself() -> None:
    labels = np.stack([LABELS, 1 - LABELS, np.ones(8), np.zeros(8)], axis=1)
    probabilities = baselines.tfidf_multi_label(GOOD + BAD, labels, ["good fine", "bad cold"])
    assert (probabilities[:, 0] > 0.5).tolist() == [True, False]
    assert (probabilities[:, 1] > 0.5).tolist() == [False, True]
    assert probabilities[:, 2:].tolist() == [[1, 0], [1, 0]]


def test_tfidf_learns_numbers() -> None:
    predicted = baselines.tfidf_regression(GOOD + BAD, LABELS * 4.0, ["good fine", "bad cold"])
    assert predicted[0] > 2.5
    assert predicted[1] < 1.5


def test_numbers_without_words_get_the_mean() -> None:
    assert baselines.tfidf_regression(["!", "?"], np.array([1.0, 3.0]), ["new"]).tolist() == [2.0]


@pytest.mark.parametrize(
    ("problem", "labels", "shapes"),
    [
        ("single_label", LABELS, {"majority": (3, 2), "tfidf": (3, 2)}),
        ("multi_label", np.stack([LABELS, LABELS], axis=1), {"majority": (3, 2), "tfidf": (3, 2)}),
        ("regression", LABELS * 1.0, {"mean": (3, 1), "tfidf": (3, 1)}),
    ],
)
def test_every_problem_has_its_rivals(problem: str, labels: np.ndarray, shapes: dict[str, tuple[int, int]]) -> None:
    found = baselines.rivals(problem, GOOD + BAD, labels, ["a", "b", "c"], classes=2)  # type: ignore[arg-type]
    assert {name: values.shape for name, values in found.items()} == shapes


def test_only_so_many_rows_are_used_and_a_seed_draws_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "_MAX_TRAIN_ROWS", 4)
    first, again, other = (baselines._sample(100, seed).tolist() for seed in (0, 0, 2))
    assert len(set(first)) == 4
    assert first == again == sorted(first)
    assert first != other
    assert baselines._sample(4, 0).tolist() == [0, 1, 2, 3]


def test_words_of_rows_that_are_not_used_stay_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = [f"word{i}" for i in range(8)], np.arange(8) % 2
    monkeypatch.setattr(baselines, "_MAX_TRAIN_ROWS", 4)
    used = baselines._sample(8, 0)
    unused = [texts[i] for i in set(range(8)) - set(used)]
    probabilities = baselines.tfidf(texts, labels, [*unused, "never seen"], classes=2, seed=0)
    assert (probabilities == probabilities[-1]).all()


def test_ten_thousand_rows_take_seconds() -> None:
    random = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(3000)])
    labels = random.integers(0, 10, 10_000)
    texts = [" ".join(words[(random.zipf(1.3, 15) + 7 * k) % 3000]) for k in labels]
    start = time.perf_counter()
    probabilities = baselines.tfidf(texts, labels, texts[:1000], classes=10)
    assert time.perf_counter() - start < 20
    assert (probabilities.argmax(axis=1) == labels[:1000]).mean() > 0.5


def test_sst2_sentences_are_learned_as_well_as_words_allow(shared_data: Path) -> None:
    train, labels = read_tsv(shared_data / "sst2_sentences" / "train.tsv")
    texts, truth = read_tsv(shared_data / "sst2_sentences" / "dev.tsv")
    accuracy = (baselines.tfidf(train, labels, texts, classes=2).argmax(axis=1) == truth).mean()
    assert 0.78 < accuracy < 0.83
