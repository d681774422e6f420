"""The plan of batches is one contract for every engine, process count and micro batch size."""

import numpy as np
import pytest

from nlp_finetune.data.batching import BatchPlan, by_length, planned_steps

LENGTHS = np.random.default_rng(0).integers(5, 80, size=103).tolist()


def plan(**changes) -> BatchPlan:
    settings = {"lengths": LENGTHS, "batch_size": 8, "steps": 40, "seed": 3}
    return BatchPlan(**{**settings, **changes})


def stream(p: BatchPlan, steps: int) -> list[int]:
    return [int(row) for step in range(steps) for row in p.global_batch(step)]


def test_every_row_is_seen_once_in_each_epoch() -> None:
    rows = stream(plan(), 40)[: 3 * 103]
    for epoch in range(3):
        assert sorted(rows[epoch * 103 : (epoch + 1) * 103]) == list(range(103))


def test_every_global_batch_has_exactly_the_asked_size() -> None:
    assert {len(plan().global_batch(step)) for step in range(40)} == {8}


@pytest.mark.parametrize(("processes", "micro_batches"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 2), (8, 1)])
def test_processes_and_micro_batches_share_out_the_same_rows(processes: int, micro_batches: int) -> None:
    cut = plan(processes=processes, micro_batches=micro_batches)
    for step in range(30):
        pieces = [rows for process in range(processes) for rows in cut.micro_batch_rows(step, process)]
        assert sorted(np.concatenate(pieces)) == sorted(plan().global_batch(step))
        assert all(len(piece) for piece in pieces)
        assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    assert stream(plan(), 20) == stream(plan(), 20)
    assert stream(plan(), 20) != stream(plan(seed=4), 20)


def test_epochs_differ_in_order() -> None:
    rows = stream(plan(), 26)
    assert rows[:103] != rows[103:206]


def test_a_step_can_be_asked_for_out_of_order() -> None:
    p = plan()
    forward = [p.global_batch(step).tolist() for step in range(30)]
    assert [p.global_batch(step).tolist() for step in reversed(range(30))] == forward[::-1]


def test_buckets_save_most_of_the_padding() -> None:
    bucketed, random = plan().padding_fraction(40), plan(bucket=False).padding_fraction(40)
    assert bucketed < random / 2


def test_epochs_end_where_their_last_row_is_seen() -> None:
    p = plan()
    ends = [step for step in range(1, 41) if p.ends_epoch(step)]
    assert ends == [13, 26, 39]  # ceil of 103/8, 206/8, 309/8
    assert p.epoch_at(13) == pytest.approx(104 / 103)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="exceeds the 103 rows"):
        plan(batch_size=104)


def test_the_sampler_has_the_length_it_yields() -> None:
    sampler = plan(processes=2, micro_batches=2).sampler(1)
    assert len(list(sampler)) == len(sampler) == 80


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs", "max_steps", "steps"),
    [(100, 10, 3, None, 30), (101, 10, 1, None, 11), (5, 10, 1, None, 1), (100, 10, 3, 7, 7), (100, 10, 0.5, None, 5)],
)
def test_planned_steps(rows: int, batch_size: int, epochs: float, max_steps: int | None, steps: int) -> None:
    assert planned_steps(rows=rows, batch_size=batch_size, epochs=epochs, max_steps=max_steps) == steps


def test_evaluation_runs_the_longest_rows_first_and_each_once() -> None:
    batches = by_length(LENGTHS, 10)
    assert sorted(np.concatenate(batches)) == list(range(103))
    assert LENGTHS[batches[0][0]] == max(LENGTHS)


def test_evaluation_batches_can_be_kept_to_a_number_of_tokens() -> None:
    batches = by_length(LENGTHS, 10, most_tokens=200)
    assert sorted(np.concatenate(batches)) == list(range(103))
    padded = [len(batch) * max(LENGTHS[row] for row in batch) for batch in batches]
    assert max(padded) <= 200
    assert max(map(len, batches)) == 10
    assert [len(batch) for batch in by_length([500, 400], 10, most_tokens=200)] == [1, 1]
