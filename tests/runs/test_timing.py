"""Where the time of training goes."""

import time

import pytest
import torch
from transformers import TrainerControl, TrainerState

from nlp_finetune.runs.timing import PARTS, Laps, Stopwatch


def step(watch: Stopwatch, *, data: float, forward: float, backward: float, optimizer: float) -> None:
    """The events of one optimizer step, each part taking so many seconds."""
    events = (None, TrainerState(), TrainerControl())
    time.sleep(data)
    watch.on_step_begin(*events)  # type: ignore[arg-type]
    watch.timed(lambda: time.sleep(forward))()
    time.sleep(backward)
    watch.on_pre_optimizer_step(*events)  # type: ignore[arg-type]
    time.sleep(optimizer)
    watch.on_step_end(*events)  # type: ignore[arg-type]


def test_time_counts_for_the_part_it_was_spent_on() -> None:
    watch = Stopwatch()
    watch.on_train_begin(None, TrainerState(), TrainerControl())  # type: ignore[arg-type]
    for _ in range(2):
        step(watch, data=0.01, forward=0.03, backward=0.05, optimizer=0.02)
    time.sleep(0.04)
    watch.on_evaluate(None, TrainerState(), TrainerControl())  # type: ignore[arg-type]
    time.sleep(0.06)
    watch.restart()
    expected = {
        "data": 0.02, "forward": 0.06, "backward": 0.1, "optimizer": 0.04, "evaluation": 0.04, "saving": 0.06,
    }  # fmt: skip
    assert watch.split == pytest.approx(expected, abs=0.03)
    assert watch.seconds == pytest.approx(sum(watch.split[part] for part in PARTS[:4]), abs=0.01)


def test_an_objective_that_is_measured_outside_of_steps_does_not_count() -> None:
    watch = Stopwatch()
    watch.on_train_begin(None, TrainerState(), TrainerControl())  # type: ignore[arg-type]
    assert watch.timed(lambda value: value + 1)(1) == 2
    assert watch.split["forward"] == 0


def test_a_resumed_run_adds_to_the_time_it_had_spent() -> None:
    watch = Stopwatch()
    watch.load_state_dict({"seconds": 5.0, "split": {"forward": 3.0}})
    assert watch.state_dict()["split"] == {**dict.fromkeys(PARTS, 0.0), "forward": 3.0}
    watch.load_state_dict({"seconds": 6.0})
    assert watch.seconds == 6.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_laps_of_a_gpu_are_its_own_time_and_are_read_late() -> None:
    laps = Laps(cuda=True)
    laps.restart()
    torch.cuda._sleep(200_000_000)
    laps.lap("forward")
    assert laps.seconds["forward"] == 0
    laps.settle()
    assert 0.02 < laps.seconds["forward"] < 5
