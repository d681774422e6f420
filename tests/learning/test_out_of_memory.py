"""Micro batches in more and more parts, agreed on by all processes."""

from __future__ import annotations

import pytest
import torch

from nlp_finetune.learning.out_of_memory import AgreedOutOfMemoryError, MemoryGuard, OutOfMemory


def test_parts_double_until_each_has_one_row() -> None:
    said: list[str] = []
    guard = MemoryGuard(fewest_rows=5, agree=None, say=said.append)
    parts = [guard.parts]
    for step in (3, 4, 9):
        guard.split(step)
        parts.append(guard.parts)
    assert parts == [1, 2, 4, 5]
    assert said[0].startswith("step 3: out of memory; ")
    with pytest.raises(OutOfMemory, match="step 10 with micro batches of one row"):
        guard.split(10)


def test_parts_survive_a_checkpoint() -> None:
    guard = MemoryGuard(fewest_rows=8, agree=None, say=print)
    guard.load_state_dict({"parts": 4})
    assert guard.state_dict() == {"parts": 4}
    fewer = MemoryGuard(fewest_rows=3, agree=None, say=print)
    fewer.load_state_dict({"parts": 4})
    assert fewer.parts == 3


@pytest.mark.parametrize("mine", [True, False])
def test_a_pass_fails_on_every_process_where_it_failed_on_one(mine: bool) -> None:
    guard = MemoryGuard(fewest_rows=8, agree=lambda flag: True, say=print)

    def objective(*_: object) -> int:
        if mine:
            raise torch.OutOfMemoryError("out of memory")
        return 1

    with pytest.raises(AgreedOutOfMemoryError):
        guard.guarded(objective)(None, None, None)
    with torch.no_grad():  # an evaluation is not a training step
        if not mine:
            assert guard.guarded(objective)(None, None, None) == 1
