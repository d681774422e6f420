"""What is due when: by steps, by the clock, on request."""

import time
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from nlp_finetune.data.batching import BatchPlan
from nlp_finetune.learning.flow import Flow, RankSeed, Requests


def walk(steps: int, *, save_every: Any = "end", every_s: float | None = None, stop_at: int | None = None) -> list:
    """`(step, a save is due, training stops)` of a run whose steps take 0.03 s."""
    plan = BatchPlan([5] * 40, 4, steps, seed=1)
    flow = Flow(plan, log_every=100, eval_every=100, save_every=save_every)
    control, state = TrainerControl(), TrainerState()
    requests = Requests(agree=lambda due: (state.global_step == stop_at, due), flow=flow, save_every_s=every_s)
    requests.on_train_begin(None, state, control)
    found = []
    while state.global_step < steps and not control.should_training_stop:
        time.sleep(0.03)
        state.global_step += 1
        control.should_evaluate = False
        flow.on_step_end(None, state, control)
        requests.on_step_end(None, state, control)
        found.append((state.global_step, flow.save_due, control.should_training_stop))
    return found


def test_a_save_by_the_clock_is_due_after_so_many_seconds_and_at_the_end() -> None:
    due = [step for step, save, _ in walk(12, every_s=0.1) if save]
    assert due[-1] == 12
    assert len(due) >= 3
    assert min(b - a for a, b in zip([0, *due], due[:-1], strict=False)) >= 2


def test_without_a_clock_only_the_end_is_saved() -> None:
    assert [step for step, save, _ in walk(5) if save] == [5]


def test_a_request_saves_and_stops_at_the_step_after_it() -> None:
    assert walk(9, stop_at=4)[-1] == (4, True, True)


def test_dropout_of_a_resumed_run_without_its_random_state_is_new_on_every_process_and_step() -> None:
    drawn = set()
    for step in (0, 5, 6):
        for rank in (0, 1):
            RankSeed(3, rank=rank).on_train_begin(None, TrainerState(global_step=step), TrainerControl())
            drawn.add(float(torch.rand(())))
    assert len(drawn) == 6


@pytest.mark.parametrize("step", [0, 5])
def test_the_seed_of_a_process_is_the_same_each_time(step: int) -> None:
    one, other = (draw(step) for _ in range(2))
    assert one == other


def draw(step: int) -> float:
    RankSeed(3, rank=1).on_train_begin(None, TrainerState(global_step=step), TrainerControl())
    return float(torch.rand(()))
