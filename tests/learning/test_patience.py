"""What happens after some evaluations in a row without a new best."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl, TrainerState

from nlp_finetune.learning.optimizers import make_optimizer
from nlp_finetune.learning.patience import EarlyStopping, Patience, ReduceOnPlateau
from nlp_finetune.learning.schedules import make_scheduler


def evaluate(callback: Patience, *, step: int, best: int, lr_scheduler: object = None) -> TrainerControl:
    state = TrainerState(global_step=step, best_global_step=best)
    return callback.on_evaluate(SimpleNamespace(), state, TrainerControl(), lr_scheduler=lr_scheduler)  # type: ignore[arg-type]


def test_training_stops_only_after_evaluations_in_a_row() -> None:
    callback = EarlyStopping(patience=2, say=lambda _: None)
    bests = [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3)]
    assert [evaluate(callback, step=s, best=b).should_training_stop for s, b in bests] == [False] * 4 + [True]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_best_that_is_hardly_better_does_not_count_and_small_steps_add_up(sign: int) -> None:
    callback = EarlyStopping(patience=2, min_delta=0.1, say=lambda _: None)
    stopped = []
    for step, score in enumerate([0.5, 0.56, 0.62, 0.65, 0.72], 1):
        state = TrainerState(global_step=step, best_global_step=step, best_metric=sign * score)
        control = callback.on_evaluate(SimpleNamespace(), state, TrainerControl())
        stopped.append(control.should_training_stop)
    assert stopped == [False, False, False, False, True]  # 0.62 counts against 0.5; 0.65 and 0.72 not against 0.62


def test_what_counted_last_survives_a_checkpoint() -> None:
    callback, other = (EarlyStopping(patience=2, min_delta=0.1, say=print) for _ in range(2))
    state = TrainerState(global_step=1, best_global_step=1, best_metric=0.5)
    callback.on_evaluate(SimpleNamespace(), state, TrainerControl())
    other.load_state_dict(callback.state_dict())
    assert other.counted == 0.5


def test_the_rate_is_cut_once_for_all_groups_and_the_count_begins_anew() -> None:
    model = torch.nn.Linear(2, 2)  # weight and bias: two groups
    optimizer = make_optimizer(model, name="sgd", learning_rate=1.0, weight_decay=0.1)
    scheduler = make_scheduler(optimizer, 100, name="plateau", warmup=0)
    said: list[str] = []
    callback = ReduceOnPlateau(patience=2, factor=0.5, say=said.append)
    rates = []
    for step in range(1, 6):
        evaluate(callback, step=step, best=1, lr_scheduler=scheduler)
        optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr())
    assert rates == [[1.0, 1.0], [1.0, 1.0], [0.5, 0.5], [0.5, 0.5], [0.25, 0.25]]
    assert len(said) == 2


@pytest.mark.parametrize("kind", [EarlyStopping, partial(ReduceOnPlateau, factor=0.5)])
def test_the_count_survives_a_checkpoint(kind: Callable[..., Patience]) -> None:
    callback, other = kind(patience=3, say=print), kind(patience=3, say=print)
    evaluate(callback, step=2, best=1)
    other.load_state_dict(callback.state_dict())
    assert other.evaluations_without_best == 1
