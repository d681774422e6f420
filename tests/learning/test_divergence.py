"""Steps that leave the finite numbers are seen before the optimizer moves, and traced to rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState

from nlp_finetune.learning.divergence import DivergedError, FiniteWatch, are_finite, find_offenders
from nlp_finetune.learning.optimizers import make_optimizer
from nlp_finetune.learning.schedules import make_scheduler
from nlp_finetune.runs import checkpoints, halving


def watch(*, scaled: bool = False, agree: Callable[[bool], bool] = bool) -> FiniteWatch:
    found = FiniteWatch(agree=agree, scaled=scaled)
    found.on_step_begin(None, TrainerState(global_step=6), TrainerControl())
    return found


@pytest.mark.parametrize("norm", [math.nan, math.inf, torch.tensor(math.nan)])
def test_a_gradient_that_is_no_number_names_its_step(norm: Any) -> None:
    with pytest.raises(DivergedError, match="the gradient is no finite number in step 7"):
        watch().on_gradients(norm)


def test_finite_gradients_pass() -> None:
    watch().on_gradients(torch.tensor(1e30))
    watch().on_gradients(None)


def test_a_gradient_scaler_may_leave_out_steps_but_not_for_ever() -> None:
    found = watch(scaled=True)
    for _ in range(3):
        for _ in range(19):
            found.on_gradients(math.inf)
        found.on_gradients(1.0)
    for _ in range(19):
        found.on_gradients(math.inf)
    with pytest.raises(DivergedError):
        found.on_gradients(math.inf)


def test_a_mark_on_the_device_is_read_where_the_run_waits_and_names_the_first_bad_step() -> None:
    found, control, model = watch(), TrainerControl(), nn.Linear(2, 2)
    for step, norm in enumerate([1.0, math.nan, 1.0, math.inf], 1):
        found.on_step_begin(None, TrainerState(global_step=step - 1), control)
        found._mark(torch.tensor(norm))  # what a GPU gets
        found.on_step_end(None, TrainerState(global_step=step), control, model=model)
    control.should_log = True
    with pytest.raises(DivergedError, match="step 2"):
        found.on_step_end(None, TrainerState(global_step=4), control, model=model)


def test_weights_that_are_no_numbers_on_any_process_are_not_saved() -> None:
    control = TrainerControl(should_evaluate=True)
    with pytest.raises(DivergedError, match="the weights are no finite number"):
        watch(agree=lambda _: True).on_step_end(None, TrainerState(global_step=7), control, model=nn.Linear(2, 2))


def test_a_loss_that_is_no_number_stops_where_it_is_logged() -> None:
    with pytest.raises(DivergedError, match="the loss is no finite number in step 9"):
        watch().on_log(None, TrainerState(global_step=9), TrainerControl(), logs={"loss": math.nan})


def test_one_number_among_all_weights_is_found() -> None:
    model = nn.Linear(5, 5)
    assert are_finite(model.parameters())
    model.weight.data[3, 3] = math.inf
    assert not are_finite(model.parameters())
    model.requires_grad_(False)
    assert are_finite(model.parameters())


class Root(nn.Module):
    """Square root of a sum of squares: its gradient is no number at 0, where its value is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.weight * x).pow(2).sum().sqrt()


def test_rows_are_found_by_their_loss_or_else_by_their_gradient_and_the_model_is_left_as_it_was() -> None:
    model, rows = Root().train(), [1.0, math.inf, 2.0, 0.0, -3.0]
    before = torch.get_rng_state()
    found = find_offenders(
        model,
        lambda m, batch, items: (m(batch["x"]) / items, None),
        lambda drawn: {"x": torch.tensor(drawn)},
        rows,
        [4, 3, 2, 1],
        torch.device("cpu"),
    )
    assert [(one.draw, one.what) for one in found] == [(3, "gradient"), (1, "loss")]
    assert model.training
    assert model.weight.grad is None
    assert torch.equal(before, torch.get_rng_state())


def test_the_rate_in_a_checkpoint_is_scaled_for_its_next_step_and_all_later_ones(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"

    def made() -> tuple[Any, Any]:
        torch.manual_seed(0)
        optimizer = make_optimizer(nn.Linear(2, 2), name="adamw", learning_rate=1.0, weight_decay=0.1)
        return optimizer, make_scheduler(optimizer, 10, name="linear", warmup=0)

    optimizer, scheduler = made()
    rates = []
    for step in range(10):
        if step == 4:
            partial = checkpoints.partial_folder(root, 4)
            partial.mkdir(parents=True)
            checkpoints.save_state(
                partial, state=TrainerState(global_step=4), optimizer=optimizer.state_dict(), scheduler=scheduler,
                scaler=None, callbacks={"kept": 1},
            )  # fmt: skip
            folder = checkpoints.publish(root, 4, keep=1)
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert halving.scale_rate(folder, 0.5, callbacks={"Rollbacks": {"count": 1}}) == 4
    assert checkpoints.newest(root, print) == folder
    assert checkpoints.load_callbacks(folder) == {"Rollbacks": {"count": 1}}
    optimizer, scheduler = made()
    checkpoints.load_optimizer(folder, optimizer, scheduler, None)
    halved = []
    for _ in range(4, 10):
        halved.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert halved == pytest.approx([rate / 2 for rate in rates[4:]])
