"""Runs that freeze a part of the model: it ends bit for bit as it began, in both engines."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.command_line import run
from tests.tiny import TINY

FREEZE = ("model.dropout=0.1", "train.max_steps=4", "freeze.layers=1", "optim.weight_decay=0.1")


def weights(folder: Path) -> dict:
    return load_file(folder / "model" / "model.safetensors")


def changed(one: dict, other: dict) -> set[str]:
    return {name for name in one if not (one[name] == other[name]).all()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    done = run(*TINY, "train.max_steps=1", "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    return folder / "run"


def train(base: Path, folder: Path, *more: str) -> Path:
    settings = (*TINY[:2], f"model.checkpoint={base}", "data.source=demo:reviews", *TINY[6:], *more, "output_dir=run")
    done = run(*settings, cwd=folder)
    assert done.code == 0, done.stderr
    assert "frozen: bert.embeddings, bert.encoder.layer.0; " in done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def frozen(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(base, tmp_path_factory.mktemp("frozen"), *FREEZE)


def test_frozen_tensors_are_bit_identical_after_training(base: Path, frozen: Path) -> None:
    moved = changed(weights(base), weights(frozen))
    still = set(weights(base)) - moved
    assert still == {name for name in still if name.startswith(("bert.embeddings.", "bert.encoder.layer.0."))}
    assert all(not name.startswith(("bert.embeddings.", "bert.encoder.layer.0.")) for name in moved)
    figures = json.loads((frozen / "metrics.json").read_text())["train"]
    assert figures["trainable_parameters"] < figures["total_parameters"] / 2


def test_both_engines_give_the_same_run(base: Path, frozen: Path, tmp_path: Path) -> None:
    other = train(base, tmp_path, *FREEZE, "train.engine=accelerate", "train.micro_batch_size=16")
    assert not changed(weights(frozen), weights(other))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (['freeze.patterns=["*.atention.*"]'], "no parameter of this model is called so"),
        (["freeze.layers=1", "lora.rank=4"], "freeze: lora freezes everything but its adapters"),
        (["freeze.except=head", "freeze.layers=1"], "freezes everything but the head: leave out freeze.layers"),
        (["freeze.excpt=head"], "did you mean 'except'?"),
        (["freeze.layers=-1"], "freeze.layers"),
        (["optim.rates={'*.bais': 0.5}"], "optim.rates *.bais: no parameter of this model is called so"),
        (["optim.layer_decay=1.5"], "optim.layer_decay"),
        (["optim.reinit_top_layers=1"], "nothing of a scratch: model is pretrained"),
        (["optim.reinit_top_layers=1", "lora.rank=4"], "lora leaves the layers as they are"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(more: list[str], message: str, tmp_path: Path) -> None:
    done = run(*TINY, "train.max_steps=2", *more, "output_dir=run", cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_a_run_that_thaws_layers_and_was_stopped_ends_the_same(engine: str, tmp_path: Path) -> None:
    settings = (
        *TINY, "model.dropout=0.1", "freeze.gradual=2", "train.max_steps=8", "train.eval_every=8", "train.save_every=4",
        f"train.engine={engine}", "output_dir=run",
    )  # fmt: skip
    done = run(*settings, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "step 2: bert.encoder.layer.1 begins to train" in done.stderr
    folder, whole = tmp_path / "run", weights(tmp_path / "run")
    for name in ("model", "checkpoints/step-8"):
        shutil.rmtree(folder / name)
    for name in ("metrics.json", "status.json"):
        (folder / name).unlink()
    done = run(*settings, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "going on from" in done.stderr
    assert not changed(whole, weights(folder))


@pytest.mark.slow
def test_layers_that_would_be_random_and_frozen_are_refused(base: Path, tmp_path: Path) -> None:
    settings = (*TINY[:2], f"model.checkpoint={base}", "data.source=demo:reviews", *TINY[6:])
    more = ("train.max_steps=2", "freeze.layers=2", "optim.reinit_top_layers=1", "output_dir=run")
    done = run(*settings, *more, cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert "would be drawn anew and then stay frozen" in done.stderr
    assert not (tmp_path / "run").exists()


def test_check_shows_layer_by_layer_what_trains(tmp_path: Path) -> None:
    done = run("check", *TINY, "freeze.except=head", "--json", cwd=tmp_path)
    plan = json.loads(done.stdout)["plan"]
    assert plan["plan"]["freeze"].startswith("frozen: bert; ")
    assert {layer["name"]: layer["trainable"] for layer in plan["layers"]} == {
        "bert.embeddings": False, "bert.encoder.layer.0": False, "bert.encoder.layer.1": False,
        "bert.pooler": False, "classifier": True,
    }  # fmt: skip
    assert {layer["name"]: layer["learning_rates"] for layer in plan["layers"] if layer["trainable"]} == {
        "classifier": [1e-3]
    }


def test_check_shows_the_rate_of_each_layer(tmp_path: Path) -> None:
    rates = ("optim.layer_decay=0.5", "optim.head_multiplier=10", "optim.rates={'*.encoder.*.bias': 0.5}")
    done = run("check", *TINY, *rates, "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    found = {layer["name"]: layer["learning_rates"] for layer in json.loads(done.stdout)["plan"]["layers"]}
    assert found["classifier"] == pytest.approx([1e-2])
    assert found["bert.pooler"] == pytest.approx([1e-3])
    assert found["bert.encoder.layer.1"] == pytest.approx([0.25e-3, 0.5e-3])
    assert found["bert.encoder.layer.0"] == pytest.approx([0.125e-3, 0.25e-3])
    assert found["bert.embeddings"] == pytest.approx([0.125e-3])
