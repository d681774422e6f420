"""Memory is given back where much more of it is resident than a step needs, and only there."""

from collections.abc import Sequence

from nlp_finetune.learning.excess_memory import ExcessMemory


def given_back(resident: Sequence[int]) -> list[int]:
    """The steps, from 1, after which memory is given back, if so much is resident after each."""
    seen: list[int] = []
    steps: list[int] = []

    def next_one() -> int:
        seen.append(resident[len(seen)])
        return seen[-1]

    watch = ExcessMemory(resident=next_one, give_back=lambda: steps.append(len(seen)))
    for _ in resident:
        watch.on_step_end(None, None, None)
    return steps


def test_what_a_step_needs_is_kept() -> None:
    assert given_back([100, 110, 124, 90, 125]) == []


def test_what_adds_up_is_given_back() -> None:
    assert given_back([100, 120, 130, 100, 120, 130, 100]) == [3, 6]


def test_a_step_that_needs_more_raises_what_is_kept() -> None:
    # After the third step nothing is spare, so 160 are what the fourth one needs.
    assert given_back([100, 100, 130, 160, 190, 200, 201]) == [3, 7]
