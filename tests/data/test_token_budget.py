"""Cuts of an optimizer step's rows by tokens."""

import itertools

import numpy as np
import pytest

from nlp_finetune.data.batching import BatchPlan
from nlp_finetune.data.token_budget import pieces


def cost(lengths: list[int], padded: bool) -> int:
    return max(lengths) * len(lengths) if padded else sum(lengths)


def costs(lengths: list[int], found: list[int], padded: bool) -> list[int]:
    ends = list(itertools.accumulate(found))
    return [cost(lengths[end - n : end], padded) for n, end in zip(found, ends, strict=True)]


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_pieces_are_as_few_as_the_budget_allows_and_as_even_as_possible(padded: bool, processes: int) -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        lengths = sorted(random.integers(1, 60, size=random.integers(6, 10)).tolist())
        most = int(random.integers(2 * max(lengths), 4 * max(lengths)))
        found = pieces(lengths, most=most, processes=processes, padded=padded)
        assert sum(found) == len(lengths)
        assert min(found) >= 1
        assert len(found) % processes == 0
        k = len(found) // processes
        best = {n: smallest_maximum(lengths, n * processes, padded) for n in range(1, len(lengths) // processes + 1)}
        fitting = [n for n, worst in best.items() if worst <= most]
        assert k == (fitting[0] if fitting else max(best))
        assert max(costs(lengths, found, padded)) == best[k]


def smallest_maximum(lengths: list[int], count: int, padded: bool) -> int:
    """Tokens of the largest piece in the best of all cuts, by trying them all."""
    cuts = itertools.combinations(range(1, len(lengths)), count - 1)
    return min(max(costs(lengths, np.diff([0, *cut, len(lengths)]).tolist(), padded)) for cut in cuts)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_plan_keeps_the_rows_of_every_step_and_the_budget(processes: int) -> None:
    lengths = np.random.default_rng(1).integers(3, 50, size=61).tolist()
    whole = BatchPlan(lengths, 12, 9, seed=3)
    plan = BatchPlan(lengths, 12, 9, seed=3, processes=processes, max_tokens=120)
    numbers = set()
    for step in range(9):
        found = [plan.micro_batch_rows(step, process) for process in range(processes)]
        assert len({len(own) for own in found}) == 1
        numbers.add(len(found[0]))
        rows = [row for own in found for piece in own for row in piece.tolist()]
        assert sorted(rows) == sorted(whole.global_batch(step).tolist())
        assert all(max(lengths[r] for r in piece) * len(piece) <= 120 for own in found for piece in own)
    assert len(numbers) > 1
    windows = list(plan.sampler(0))
    assert len(windows) == len(plan.sampler(0)) == 9
    assert [len(window) for window in windows] == [len(plan.micro_batch_draws(step, 0)) for step in range(9)]
