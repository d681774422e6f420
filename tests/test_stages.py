"""Stages that train more and more layers: each goes on from the last one's best, until the target or no gain."""

import csv
import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from nlp_finetune.job import Result
from nlp_finetune.models.freezing import Stage, stages
from nlp_finetune.recipe import Recipe, load
from nlp_finetune.stages import Stages
from nlp_finetune.tasks import base
from tests.command_line import run
from tests.models.conftest import SIZES
from tests.models.conftest import load as load_model
from tests.tiny import TINY

UNTIL = ("freeze.until={target: 2.0, patience: 9}", "train.epochs=2", "model.dropout=0.1", "train.log_every=4")
"""A target that nothing reaches."""


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "bart", "albert", "distilbert"])
def test_stages_freeze_from_the_head_down_to_nothing(family: str) -> None:
    found = stages(load_model(f"scratch:{family}", edits=SIZES[family]))
    blocks = {"bart": 4, "albert": 1}.get(family, 2)
    assert [stage.frozen for stage in found] == [*range(blocks, -1, -1), None]


def test_a_floor_never_trains() -> None:
    model = load_model("scratch:bert", edits=SIZES["bert"])
    assert [stage.frozen for stage in stages(model, floor=1)] == [2, 1]


def recipe(*overrides: str) -> Recipe:
    tiny = list(TINY[2:])
    found = load("text_cls", overrides=[*tiny, *overrides], task_options=base.options_of, task_names=base.names())
    return found.recipe


def series(*overrides: str, levels: int = 4) -> Stages:
    made = [Stage(levels - 2 - n if n < levels - 1 else None, [f"level {n}"]) for n in range(levels)]
    return Stages(recipe(*overrides), made, metric="auto")


def results(*values: float, metric: str = "accuracy") -> list[Result]:
    return [Result("", {"best": {"metric": metric, "value": value}}) for value in values]


@pytest.mark.parametrize(
    ("values", "patience", "why"),
    [
        ((), 1, None),
        ((0.5,), 1, None),
        ((0.9,), 1, "the target is reached: validation accuracy 0.9000"),
        ((0.5, 0.5), 1, "the last stage brought nothing"),
        ((0.5, 0.4), 2, None),
        ((0.5, 0.4, 0.45), 2, "none of the last 2 stages brought anything"),
        ((0.5, 0.6, 0.7, 0.8), 1, "all layers train that may"),
    ],
)
def test_a_series_ends_by_target_gain_or_layers(values: tuple, patience: int, why: str | None) -> None:
    assert series(f"freeze.until={{target: 0.9, patience: {patience}}}").why_ended(results(*values)) == why


def test_a_loss_is_reached_from_above() -> None:
    made = series("freeze.until={target: 0.3, metric: loss}")
    assert made.why_ended(results(0.4, 0.35, metric="loss")) is None
    assert "reached" in str(made.why_ended(results(0.4, 0.25, metric="loss")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    done = run("train", *TINY, *UNTIL, f"output_dir={folder / 'run'}", cwd=folder)
    assert done.code == 0, done.stderr
    assert "stage 1 of at most 4, bert.pooler, classifier" in done.stderr
    assert "frozen layers cached: 2 of 2 blocks" in done.stderr
    assert "target 2; all layers train that may" in done.stdout
    return folder


@pytest.mark.slow
def test_the_curve_says_what_each_stage_brought_and_cost(folder: Path) -> None:
    found = read(folder / "run/metrics.json")["stages"]
    assert not found["reached"]
    curve = found["curve"]
    assert [row["added"] for row in curve] == [
        ["bert.pooler", "classifier"], ["bert.encoder.layer.1"], ["bert.encoder.layer.0"], ["bert.embeddings"],
    ]  # fmt: skip
    parts = [read(folder / "run" / row["folder"] / "metrics.json") for row in curve]
    assert [row["score"] for row in curve] == [part["best"]["value"] for part in parts]
    assert [row["parameters"] for row in curve] == sorted(row["parameters"] for row in curve)
    assert curve[-1]["parameters"] == parts[-1]["train"]["total_parameters"]
    assert all(row["seconds"] >= part["train"]["seconds"] for row, part in zip(curve, parts, strict=True))
    caches = [part["train"].get("frozen_cache") for part in parts]
    assert [cache is not None for cache in caches] == [True, True, False, False]
    assert [row["cache_seconds"] for row in curve] == [0.0 if cache is None else cache["seconds"] for cache in caches]
    with (folder / "run/stages.csv").open() as stream:
        assert [float(row["score"]) for row in csv.DictReader(stream)] == [row["score"] for row in curve]
    assert '<h2 id="stages">Stages</h2>' in (folder / "run/report.html").read_text("utf-8")


@pytest.mark.slow
def test_each_stage_starts_from_the_best_of_the_last_and_leaves_frozen_layers_alone(folder: Path) -> None:
    parts = [load_file(folder / f"run/parts/stage-{n}/model/model.safetensors") for n in (1, 2, 3, 4)]
    for number, (before, after) in enumerate(itertools.pairwise(parts)):
        frozen = [f"bert.encoder.layer.{n}." for n in range(1 - number)] + ["bert.embeddings."] * (number < 2)
        for name in before:
            if name.startswith(tuple(frozen) or ("-",)):
                assert (before[name] == after[name]).all(), name
    assert "checkpoint: parts" not in (folder / "run/recipe.yaml").read_text()
    assert read(folder / "run/sources.json") == read(folder / "run/parts/stage-1/sources.json")


@pytest.mark.slow
def test_the_best_stage_is_on_top_and_the_same_command_changes_nothing(folder: Path) -> None:
    found = read(folder / "run/metrics.json")["stages"]
    scores = [row["score"] for row in found["curve"]]
    assert scores[found["best"] - 1] == max(scores)
    assert weights(folder / "run") == weights(folder / f"run/parts/stage-{found['best']}")
    done = run("train", *TINY, *UNTIL, f"output_dir={folder / 'run'}", cwd=folder)
    assert "already finished" in done.stdout
    assert run("predict", folder / "run", "--text", "Good soup.", cwd=folder).code == 0


@pytest.mark.slow
def test_a_run_killed_between_and_inside_stages_goes_on_to_the_same_weights(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parents[1] / "run.py"), "train", *TINY, *UNTIL]
    command += ["output_dir=run", "train.save_every=2"]
    for stage, number in ((2, signal.SIGKILL), (3, signal.SIGTERM)):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=tmp_path)
        deadline = time.monotonic() + 240
        history = tmp_path / f"run/parts/stage-{stage}/history.jsonl"
        while not history.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it could be stopped"
        status = read(tmp_path / "run/status.json")
        assert (status["state"], status["step"]) == ("running", stage - 1)
        assert status["reason"].startswith(f"stage {stage} of at most 4")
        process.send_signal(number)
        process.communicate(timeout=120)
        if number == signal.SIGTERM:
            assert process.returncode == 75
            assert read(tmp_path / "run/status.json")["state"] == "stopped"
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert again.returncode == 0, again.stderr
    for stage in (1, 2, 3, 4):
        assert weights(tmp_path / f"run/parts/stage-{stage}") == weights(folder / f"run/parts/stage-{stage}")
    assert read(tmp_path / "run/status.json")["state"] == "finished"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["freeze.until={}"], "freeze.until"),
        (["freeze.until={target: 0.9, patence: 2}"], "it takes a mapping of target, metric, patience or null"),
        (["freeze.until.target=0.9", "freeze.except=head"], "decides itself what trains"),
        (["freeze.until.target=0.9", "train.seeds=[1, 2]"], "one series at a time"),
        (["freeze.until.target=0.9", "lora.rank=4"], "leave out freeze.until"),
        (["freeze.until.target=0.9", "optim.reinit_top_layers=1"], "would stay random"),
        (["freeze.until={target: 0.9, metric: mcc}", "train.metric=accuracy"], "Leave one of them at auto"),
        (["freeze.until={target: 0.9, metric: accurcy}"], "did you mean accuracy"),
        (["freeze.until.target=0.9", "freeze.layers=3"], "at most 2"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(more: list[str], message: str, tmp_path: Path) -> None:
    done = run(*TINY, "train.max_steps=2", *more, "output_dir=run", cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_check_names_the_stages(tmp_path: Path) -> None:
    done = run("check", *TINY, "freeze.until.target=0.9", "freeze.layers=1", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    plan = json.loads(done.stdout)["plan"]["plan"]
    assert plan["stage 1"] == "bert.pooler, classifier trains"
    assert plan["stage 2"] == "bert.encoder.layer.1 too"
    assert "stage 3" not in plan
