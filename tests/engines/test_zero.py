"""DeepSpeed ZeRO-2 and -3 on real gloo processes: the trajectory, the checkpoint and the resume of one process.

They need the package `deepspeed` (the extra of that name) and are skipped without it; it runs on CPUs too.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nlp_finetune.models import zero
from tests.engines.test_parity import assert_same_trajectory, run_in_processes
from tests.engines.test_sharding import assert_rest_is_the_same
from tests.engines.trajectory import Settings, run

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed: pip install deepspeed"
)


def deepspeed(settings: Settings, folder: Path) -> dict:
    """Run under DeepSpeed, which lets go of gradients before they could be measured."""
    return {**run_in_processes(settings, folder), "measured": []}


def without(settings: Settings) -> dict:
    return {**run(settings), "measured": []}


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_two_processes_train_as_one_and_their_checkpoint_is_that_of_one(stage: int, tmp_path: Path) -> None:
    alone = Settings(micro_batches=3)
    together = replace(alone, zero=stage, processes=2)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    whole = without(replace(alone, save_at=4, checkpoint=str(tmp_path / "one" / "step-4")))
    parts = deepspeed(replace(together, save_at=4, checkpoint=str(tmp_path / "two" / "step-4")), tmp_path)
    assert_same_trajectory(whole, parts, tolerance=2e-5)

    one, two = (load_file(tmp_path / name / "step-4" / "model.safetensors") for name in ("one", "two"))
    assert {name: tensor.shape for name, tensor in one.items()} == {name: tensor.shape for name, tensor in two.items()}
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
    first, second = (
        torch.load(tmp_path / name / "step-4" / "optimizer.pt", weights_only=True) for name in ("one", "two")
    )
    assert first["param_groups"] == second["param_groups"]
    assert first["state"].keys() == second["state"].keys()
    for index, values in first["state"].items():
        assert values.keys() == second["state"][index].keys()
        for name, value in values.items():
            assert torch.allclose(value, second["state"][index][name], atol=1e-6), (index, name)

    # Any number of processes goes on from it: those of DeepSpeed from the one, and the one from DeepSpeed's.
    assert_rest_is_the_same(whole, deepspeed(replace(together, checkpoint=str(tmp_path / "one" / "step-4")), tmp_path))
    assert_rest_is_the_same(whole, without(replace(alone, checkpoint=str(tmp_path / "two" / "step-4"))))


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [{"optimizer": "sgd", "frozen_layers": 1}, {"regularizer": "r_drop", "optimizer": "rmsprop"}],
    ids=["frozen layers", "two forward passes"],
)
def test_zero_3_on_one_process_trains_what_is_trained_without_it(more: dict, tmp_path: Path) -> None:
    settings = Settings(micro_batches=2, **more)
    assert_same_trajectory(without(settings), deepspeed(replace(settings, zero=3), tmp_path), tolerance=2e-5)


def test_bf16_is_autocast_and_the_rest_is_the_recipes() -> None:
    chosen = zero.arguments(3, precision="bf16")["deepspeed"]
    assert chosen["zero_optimization"]["stage"] == 3
    assert chosen["torch_autocast"]["enabled"]
    assert "bf16" not in chosen  # it would turn weights into bf16
    assert chosen["gradient_clipping"] == chosen["gradient_accumulation_steps"] == "auto"
    assert not zero.arguments(2, precision="fp32")["deepspeed"]["torch_autocast"]["enabled"]


def test_an_optimizer_that_deepspeed_has_not_seen_is_taken_as_it_is() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    assert not zero.is_shared_out(optimizer)
    assert zero.parameters(optimizer) == [weight]
