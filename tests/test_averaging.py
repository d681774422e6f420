"""Runs that validate and save an average of weights."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

import nlp_finetune.recipe as recipes
from nlp_finetune import choices
from nlp_finetune.errors import InputError
from nlp_finetune.learning.averaging import mean_weights
from nlp_finetune.tasks import base
from tests.command_line import run
from tests.tiny import TINY
from tests.tiny_runs import SENTENCES, finish, same, stop, weights

STEPS = ("model.dropout=0.1", "train.max_steps=8", "train.eval_every=4", "train.save_every=4", "average.name=ema")
EMA = (*STEPS, "average.decay=0.6")


def train(folder: Path, *more: str) -> Path:
    done = run(*TINY, *more, "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    return folder / "run"


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


STOPPED = (*SENTENCES, "train.save_every=5")


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("average.name=ema", "average.decay=0.9", "train.engine=accelerate", "lora.rank=4"),
        ("average.name=swa", "average.every=3"),
        ("average.name=soup", "train.eval_every=4"),
    ],
)
def test_a_run_that_was_stopped_ends_with_the_same_average(more: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    finish(tmp_path / "whole", *STOPPED, *more)
    assert stop(tmp_path / "cut", *STOPPED, *more, lines=27)[0].code == 75
    assert "going on from" in finish(tmp_path / "cut", *STOPPED, *more)
    assert same(weights(tmp_path / "whole" / "run"), weights(tmp_path / "cut" / "run"))
    one, other = (json.loads((tmp_path / name / "run" / "metrics.json").read_text()) for name in ("whole", "cut"))
    assert one["validation"] == other["validation"]
    assert one.get("soup") == other.get("soup")


@pytest.fixture(scope="module")
def soup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    steps = ("train.max_steps=20", "train.eval_every=2", "train.save_total=20", "optim.learning_rate=3e-3")
    return train(tmp_path_factory.mktemp("soup"), *steps, "average.name=soup", "average.keep=4")


def test_a_soup_is_the_mean_of_the_weights_that_its_figures_name(soup: Path) -> None:
    found = json.loads((soup / "metrics.json").read_text())["soup"]
    parts = [load_file(soup / "checkpoints" / f"step-{step}" / "model.safetensors") for step in found["steps"]]
    mean = mean_weights(parts)
    assert same(weights(soup), mean)
    assert set(found["steps"]) <= set(found["candidates"])
    assert len(found["candidates"]) == 4


def test_a_soup_is_chosen_by_validation(soup: Path) -> None:
    metrics = json.loads((soup / "metrics.json").read_text())
    lines = [json.loads(line) for line in (soup / "history.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["validation"]["accuracy"] for line in lines if "validation" in line}
    best = sorted(scores, key=lambda step: (-scores[step], step))[:4]
    assert metrics["soup"]["candidates"] == best
    assert metrics["soup"]["alone"] == max(scores.values())
    assert metrics["soup"]["value"] == metrics["validation"]["accuracy"] >= metrics["soup"]["alone"]
    assert list((soup / "checkpoints").glob("best-*")) == []
    told = f"the mean of those of {len(metrics['soup']['steps'])} checkpoints"
    assert (told in (soup / "README.md").read_text("utf-8")) == (len(metrics["soup"]["steps"]) > 1)


@pytest.mark.slow
def test_both_engines_save_the_same_average(averaged: Path, tmp_path: Path) -> None:
    assert same(weights(averaged), weights(train(tmp_path, *EMA, "train.engine=accelerate")))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["average.decay=0.9"], "null does not use it; it needs average.name: ema"),
        (["average.name=swa", "average.decay=0.9"], "swa does not use it"),
        (["average.name=ema", "average.decay=1.0"], "average.decay"),
        (["average.name=soup", "average.keep=1"], "average.keep"),
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
