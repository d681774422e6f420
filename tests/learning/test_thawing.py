"""Layers that thaw one after the other: when, with what learning rate, and untouched until then."""

import tempfile

import pytest
import torch

from nlp_finetune.learning.schedules import ScheduleFactor
from nlp_finetune.learning.thawing import STARTS_AT, thaw_steps
from tests.engines.trajectory import Settings, build_job, fit


def test_groups_thaw_every_so_many_steps_or_with_the_first_step_of_an_epoch() -> None:
    assert thaw_steps(3, every=5, rows=100, batch_size=10) == [0, 5, 10]
    assert thaw_steps(3, every="epoch", rows=25, batch_size=10) == [0, 3, 5]


def test_what_thaws_warms_up_and_then_follows_the_schedule() -> None:
    whole = ScheduleFactor("linear", warmup=4, steps=40)
    late = ScheduleFactor("linear", warmup=4, steps=40, starts_at=10)
    assert [late(step) for step in (0, 9)] == [0, 0]
    rates = [late(step) / whole(step) for step in range(10, 15)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert late(30) == whole(30)


@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_layers_are_bit_identical_until_they_thaw_and_change_after(engine: str) -> None:
    settings = Settings(engine=engine, thaw_every=3, steps=5)
    with tempfile.TemporaryDirectory() as folder:
        job = build_job(settings, folder)
        before = {name: parameter.detach().clone() for name, parameter in job.model.named_parameters()}
        model = fit(job, engine).model
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert "classifier.weight" in moved
    assert any(name.startswith("bert.encoder.layer.1.") for name in moved)
    assert not any(name.startswith(("bert.encoder.layer.0.", "bert.embeddings.")) for name in moved)


def test_an_optimizer_holds_what_will_ever_train() -> None:
    with tempfile.TemporaryDirectory() as folder:
        job = build_job(Settings(thaw_every=3), folder)
    optimizer = job.make_optimizer(job.model)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in job.model.parameters()}
    assert [group[STARTS_AT] for group in optimizer.param_groups] == [0, 0, 3, 3, 6, 6, 9, 9]
