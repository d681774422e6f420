"""An order of rows in which every class comes up equally often."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nlp_finetune.data.balancing import BalancedClasses
from nlp_finetune.data.batching import BatchPlan

LABELS = [0] * 80 + [1] * 15 + [2] * 5
LENGTHS = np.random.default_rng(0).integers(5, 60, size=100).tolist()


def plan(**settings: int) -> BatchPlan:
    return BatchPlan(LENGTHS, 8, 60, seed=3, balanced=BalancedClasses(LABELS, 3), **settings)


def classes(rows: np.ndarray) -> Counter[int]:
    return Counter(LABELS[row] for row in rows)


def test_every_epoch_has_as_many_rows_as_ever_and_all_classes_equally_often() -> None:
    for epoch in range(6):
        rows = plan().epoch_order(epoch)
        assert len(rows) == 100
        assert sorted(classes(rows).values()) == [33, 33, 34]


def test_no_class_comes_up_more_than_once_more_than_another_over_a_whole_run() -> None:
    rows = np.concatenate([plan().epoch_order(epoch) for epoch in range(7)])
    counts = classes(rows)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_class_repeats_no_row_before_all_of_its_rows_have_come_up() -> None:
    turns = np.concatenate([BalancedClasses(LABELS, 3).epoch(epoch) for epoch in range(3)]) % 100
    for label, size in ((0, 80), (1, 15), (2, 5)):
        mine = [row for row in turns if LABELS[row] == label]
        for start in range(0, len(mine) - size + 1, size):
            assert len(set(mine[start : start + size])) == size


def test_draw_numbers_count_how_often_a_row_has_come_up() -> None:
    draws = np.concatenate([BalancedClasses(LABELS, 3).epoch(epoch) for epoch in range(5)])
    assert len(set(draws.tolist())) == len(draws)
    visits = Counter(int(draw) % 100 for draw in draws)
    assert all(sorted(d // 100 for d in draws if d % 100 == row) == list(range(n)) for row, n in visits.items())


@pytest.mark.parametrize(("processes", "micro_batches"), [(1, 3), (2, 1), (3, 2)])
def test_a_step_has_the_same_rows_however_it_is_cut(processes: int, micro_batches: int) -> None:
    cut = plan(processes=processes, micro_batches=micro_batches)
    for step in (0, 11, 12, 13, 59):
        pieces = [piece for process in range(processes) for piece in cut.micro_batch_draws(step, process)]
        assert sorted(np.concatenate(pieces)) == sorted(plan().micro_batch_draws(step, 0)[0])


def test_any_step_is_known_without_those_before_it() -> None:
    walked = plan()
    steps = [walked.micro_batch_draws(step, 0)[0].tolist() for step in range(40)]
    assert plan().micro_batch_draws(39, 0)[0].tolist() == steps[39]


def test_another_seed_is_another_order() -> None:
    assert (BalancedClasses(LABELS, 3).epoch(0) != BalancedClasses(LABELS, 4).epoch(0)).any()


def test_chances_are_those_of_the_classes_shared_by_their_rows() -> None:
    chances = BalancedClasses(LABELS, 3).chances
    assert chances.sum() == pytest.approx(1)
    assert [chances[:80].sum(), chances[80:95].sum(), chances[95:].sum()] == pytest.approx([1 / 3] * 3)


def test_labels_may_be_any_numbers() -> None:
    found = BalancedClasses([7, 7, 7, 2], 0)
    assert found.times() == [(2, 2.0), (7, pytest.approx(2 / 3))]
