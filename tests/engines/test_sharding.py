"""FSDP2 on real gloo processes: the trajectory, the checkpoint and the resume of one process."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AlbertConfig, AlbertForSequenceClassification, BartConfig, BartForSequenceClassification

from nlp_finetune.models.sharding import units
from tests.engines.test_parity import assert_same_trajectory, run_in_processes
from tests.engines.trajectory import Settings, run

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}


def test_units_are_the_repeated_blocks_of_any_family() -> None:
    albert = AlbertForSequenceClassification(AlbertConfig(**SIZES, embedding_size=8, num_hidden_layers=4))
    assert [type(unit).__name__ for unit in units(albert)] == ["AlbertLayerGroup"]
    bart = BartForSequenceClassification(
        BartConfig(
            vocab_size=40, d_model=16, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        )
    )  # fmt: skip
    assert [type(unit).__name__ for unit in units(bart)] == ["BartEncoderLayer"] * 2 + ["BartDecoderLayer"] * 3


def sharded(engine: str, folder: Path, **more: object) -> dict:
    return run_in_processes(Settings(engine=engine, sharded=True, processes=2, micro_batches=3, **more), folder)


def assert_same_steps(whole: dict, parts: dict) -> None:
    assert_same_trajectory(whole, parts, tolerance=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_two_shards_train_as_one_process_and_their_checkpoint_is_that_of_one(engine: str, tmp_path: Path) -> None:
    alone = Settings(engine=engine, micro_batches=3)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    whole = run(replace(alone, save_at=4, checkpoint=str(tmp_path / "one" / "step-4")))
    parts = sharded(engine, tmp_path, save_at=4, checkpoint=str(tmp_path / "two" / "step-4"))
    assert_same_steps(whole, parts)

    # Weights and optimizer: same names, same order, same values to rounding.
    one, two = (load_file(tmp_path / name / "step-4" / "model.safetensors") for name in ("one", "two"))
    assert {name: tensor.shape for name, tensor in one.items()} == {name: tensor.shape for name, tensor in two.items()}
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
    first, second = (
        torch.load(tmp_path / name / "step-4" / "optimizer.pt", weights_only=True) for name in ("one", "two")
    )
    for group in (*first["param_groups"], *second["param_groups"]):
        group["fused"] = None  # whole tensors are stepped in one pass, shards are not
    assert first["param_groups"] == second["param_groups"]
    for index, values in first["state"].items():
        for name, value in values.items():
            assert torch.allclose(value, second["state"][index][name], atol=1e-6), (index, name)
    configs = [(tmp_path / name / "step-4" / "config.json").read_text() for name in ("one", "two")]
    assert configs[0] == configs[1]

    # Any number of processes goes on from it: the sharded ones from the one, and the one from the sharded ones.
    assert_rest_is_the_same(whole, sharded(engine, tmp_path, checkpoint=str(tmp_path / "one" / "step-4")))
    assert_rest_is_the_same(whole, run(replace(alone, checkpoint=str(tmp_path / "two" / "step-4"))))


def assert_rest_is_the_same(whole: dict, resumed: dict) -> None:
    assert len(resumed["loss"]) == 8  # the history of the checkpoint, and four more steps
    # Health is kept in the history file, not in the checkpoint: a resumed run has the lines of its own steps.
    assert_same_steps({**whole, "measured": whole["measured"][4:]}, resumed)
    assert resumed["weights"] == pytest.approx(whole["weights"], rel=1e-6)


@pytest.mark.slow
def test_gradients_of_shards_are_clipped_by_value_as_those_of_one_process(tmp_path: Path) -> None:
    settings = Settings(engine="accelerate", clip_by_value=1e-3, micro_batches=2)
    parts = run_in_processes(replace(settings, sharded=True, processes=2), tmp_path)
    assert_same_trajectory(run(settings), parts, tolerance=2e-5)
