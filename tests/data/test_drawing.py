"""Rows are changed at random by seed, epoch and row, and by nothing else."""

import numpy as np
import pytest
from torch.utils.data import DataLoader

from nlp_finetune.data.batching import BatchPlan
from nlp_finetune.data.drawing import DrawnRows

ROWS = [{"number": i} for i in range(10)]


def noisy(row, random):
    return {**row, "noise": random.random()}


def drawn(**changes) -> DrawnRows:
    return DrawnRows(ROWS, **{"transform": noisy, "seed": 1, **changes})


def stream(plan: BatchPlan, rows: DrawnRows, *, process: int = 0, workers: int = 0, skip: int = 0) -> list[list[dict]]:
    batches = list(plan.sampler(process))[skip:]
    return list(DataLoader(rows, batch_sampler=batches, collate_fn=list, num_workers=workers))


def plan(**changes) -> BatchPlan:
    return BatchPlan([5 + i for i in range(10)], **{"batch_size": 4, "steps": 8, "seed": 1, **changes})


def test_a_draw_is_a_row_in_an_epoch() -> None:
    assert [drawn()[draw]["number"] for draw in (3, 13, 29)] == [3, 3, 9]


def test_the_same_draw_is_changed_alike_and_another_epoch_otherwise() -> None:
    assert drawn()[3] == drawn()[3]
    assert drawn()[3] != drawn()[13]
    assert drawn()[3] != drawn(seed=2)[3]


def test_rows_without_a_transform_are_given_as_they_are() -> None:
    assert drawn(transform=None)[13] == {"number": 3}


def test_the_order_of_drawing_and_the_global_generator_change_nothing() -> None:
    np.random.seed(0)
    forward = [drawn()[draw] for draw in range(30)]
    np.random.seed(1)
    assert [drawn()[draw] for draw in reversed(range(30))] == forward[::-1]


@pytest.mark.parametrize("settings", [{"processes": 2}, {"micro_batches": 2}, {"processes": 2, "micro_batches": 2}])
def test_any_cut_of_a_step_sees_the_same_changed_rows(settings: dict) -> None:
    whole = stream(plan(), drawn())
    cut = plan(**settings)
    parts = [stream(cut, drawn(), process=process) for process in range(cut.processes)]
    for step, batch in enumerate(whole):
        mine = slice(step * cut.micro_batches, (step + 1) * cut.micro_batches)
        together = [row for part in parts for piece in part[mine] for row in piece]
        assert sorted(map(str, together)) == sorted(map(str, batch))


def test_a_run_that_goes_on_sees_what_it_would_have_seen() -> None:
    assert stream(plan(), drawn(), skip=5) == stream(plan(), drawn())[5:]


def test_an_epoch_that_begins_within_a_batch_changes_its_rows_anew() -> None:
    # 10 rows, batches of 4: the third batch holds the last 2 rows of one epoch and 2 of the next.
    seen: dict[int, list[float]] = {}
    for batch in stream(plan(steps=5), drawn()):
        for row in batch:
            seen.setdefault(row["number"], []).append(row["noise"])
    assert all(len(set(noise)) == 2 for noise in seen.values())
