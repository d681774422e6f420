"""Runs that validate and save an average of weights."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

import nlp_finetune.recipe as recipes
from nlp_finetune import choices
from nlp_finetune.errors import InputError
from nlp_finetune.tasks import base
from tests.command_line import run
from tests.tiny import TINY
from tests.tiny_runs import same, weights

STEPS = ("model.dropout=0.1", "train.max_steps=8", "train.eval_every=4", "train.save_every=4", "average.name=ema")
EMA = (*STEPS, "average.decay=0.6")


def train(folder: Path, *more: str) -> Path:
    done = run(*TINY, *more, "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    return folder / "run"


def forget_the_end(folder: Path) -> None:
    """As if the run had been stopped after its checkpoint of step 4."""
    for name in ("model", "checkpoints/step-8"):
        shutil.rmtree(folder / name)
    for name in ("metrics.json", "status.json"):
        (folder / name).unlink()


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("ema"), *EMA)


def test_the_average_is_saved_and_the_checkpoint_goes_on_with_the_weights(averaged: Path) -> None:
    checkpoint = averaged / "checkpoints" / "step-8"
    average, own = load_file(checkpoint / "average.safetensors"), load_file(checkpoint / "model.safetensors")
    assert average.keys() <= own.keys()
    assert not same(average, {name: own[name] for name in average})
    metrics = json.loads((averaged / "metrics.json").read_text())
    if metrics["best"]["step"] == 8:
        assert same({name: weights(averaged)[name] for name in average}, average)
    validated = [json.loads(line) for line in (averaged / "history.jsonl").read_text().splitlines()]
    best = [
        line["validation"] for line in validated if line["step"] == metrics["best"]["step"] and "validation" in line
    ]
    # What is validated in training is what is saved and measured in the end.
    assert best[0]["loss"] == pytest.approx(metrics["validation"]["loss"], rel=1e-5)


def test_an_average_with_decay_zero_saves_the_run_without_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    plain = train(tmp_path_factory.mktemp("plain"), *STEPS[:-1])
    zero = train(tmp_path_factory.mktemp("zero"), *STEPS, "average.decay=0")
    assert same(weights(plain), weights(zero))


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [("train.engine=accelerate",), ("lora.rank=4",), ("average.name=swa", "average.decay=0.999", "average.every=2")],
)
def test_a_run_that_was_stopped_ends_with_the_same_average(more: tuple[str, ...], tmp_path: Path) -> None:
    folder = train(tmp_path, *EMA, *more)
    whole, figures = weights(folder), json.loads((folder / "metrics.json").read_text())
    forget_the_end(folder)
    again = train(tmp_path, *EMA, *more)
    assert same(whole, weights(again))
    assert json.loads((again / "metrics.json").read_text())["validation"] == figures["validation"]


@pytest.mark.slow
def test_both_engines_save_the_same_average(averaged: Path, tmp_path: Path) -> None:
    assert same(weights(averaged), weights(train(tmp_path, *EMA, "train.engine=accelerate")))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["average.decay=0.9"], "null does not use it; it needs average.name: ema"),
        (["average.name=swa", "average.decay=0.9"], "swa does not use it"),
        (["average.name=ema", "average.decay=1.0"], "average.decay"),
        (["average.name=emma"], "did you mean 'ema'?"),
    ],
)
def test_settings_that_nothing_uses_are_refused(more: list[str], message: str, tmp_path: Path) -> None:
    done = run(*TINY, *more, "output_dir=run", cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_average_of_shards_is_refused_by_name() -> None:
    given = [*TINY[2:], "average.name=ema"]
    recipe = recipes.load("text_cls", overrides=given, task_options=base.options_of, task_names=base.names()).recipe
    with pytest.raises(InputError, match=r"average.name ema does not run under FSDP.*ddp.yaml"):
        choices._check_strategy(recipe, SimpleNamespace(strategy="fsdp"))
