"""Several seeds are several ordinary runs, and one run of which the spread is known."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nlp_finetune.series import best_part, summary
from tests.command_line import Done, run
from tests.tiny import TINY

SEEDS = ("train.seeds=[1, 2]", "train.seed=5", "train.max_steps=3", "data.validation=null")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    done = run("train", *TINY, *SEEDS, f"output_dir={folder / 'run'}", cwd=folder)
    assert done.code == 0, done.stderr
    assert "mean of 2 seeds" in done.stdout
    return folder


def test_each_seed_is_the_run_that_it_is_alone(folder: Path) -> None:
    alone = [f for f in SEEDS if not f.startswith("train.seed")]
    done = run("train", *TINY, *alone, "train.seed=2", "data.seed=5", f"output_dir={folder / 'two'}", cwd=folder)
    assert done.code == 0, done.stderr
    part = folder / "run" / "parts" / "seed-2"
    assert (folder / "two/model/model.safetensors").read_bytes() == (part / "model/model.safetensors").read_bytes()


def test_all_seeds_are_validated_on_the_same_rows(folder: Path) -> None:
    rows = [
        [json.loads(line)["row"] for line in (part / "predictions/validation.jsonl").read_text("utf-8").splitlines()]
        for part in sorted((folder / "run" / "parts").iterdir())
    ]
    assert len(rows) == 2
    assert rows[0] == rows[1]


def test_the_spread_is_that_of_the_parts_and_the_model_that_of_the_best(folder: Path) -> None:
    metrics = read(folder / "run" / "metrics.json")
    parts = [read(folder / "run" / "parts" / f"seed-{seed}" / "metrics.json") for seed in (1, 2)]
    accuracy = metrics["seeds"]["validation"]["accuracy"]
    assert accuracy["values"] == [part["validation"]["accuracy"] for part in parts]
    assert accuracy["mean"] == pytest.approx(statistics.fmean(accuracy["values"]))
    best = metrics["seeds"]["best"]
    assert parts[best - 1]["best"]["value"] == max(part["best"]["value"] for part in parts)
    assert metrics["validation"] == parts[best - 1]["validation"]
    chosen = folder / "run" / "parts" / f"seed-{best}" / "model"
    assert (folder / "run/model/model.safetensors").read_bytes() == (chosen / "model.safetensors").read_bytes()


def test_the_folder_on_top_predicts_and_evaluates_like_any_run(folder: Path) -> None:
    done = run("evaluate", folder / "run", "--split", "validation", "--json", cwd=folder)
    assert done.code == 0, done.stderr
    expected = read(folder / "run" / "metrics.json")["validation"]
    assert json.loads(done.stdout)["metrics"]["accuracy"] == pytest.approx(expected["accuracy"])
    assert run("predict", folder / "run", "--text", "Good soup.", cwd=folder).code == 0


def test_card_and_report_on_top_tell_the_spread(folder: Path) -> None:
    assert "2 seeds (1, 2): test accuracy" in (folder / "run" / "README.md").read_text("utf-8")
    assert "The same recipe with 2 seeds" in (folder / "run" / "report.html").read_text("utf-8")


def test_the_same_command_again_changes_nothing(folder: Path) -> None:
    done = run("train", *TINY, *SEEDS, f"output_dir={folder / 'run'}", cwd=folder)
    assert done.code == 0
    assert "already finished" in done.stdout


def test_a_wrong_input_leaves_nothing_behind(tmp_path: Path) -> None:
    done = run("train", *TINY, *SEEDS, "task.label=nothing", f"output_dir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.code == 2
    assert not (tmp_path / "run").exists()


def test_a_seed_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    done: Done = run("train", *TINY, "train.seeds=[1, 1]", cwd=tmp_path)
    assert done.code == 2
    assert "a seed stands there twice" in done.stderr


ROOT = Path(__file__).parents[1]
LONGER = (*TINY, *SEEDS[:2], "data.validation=null", "train.max_steps=25", "train.log_every=1", "train.eval_every=25")


def stop(folder: Path, *, when: str) -> tuple[int, str]:
    """Start the two seeds, send SIGTERM as soon as a file is there, and give exit code and what was printed."""
    command = [sys.executable, str(ROOT / "run.py"), "train", *LONGER, f"output_dir={folder}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (folder / when).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=200)
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "where"),
    [
        ("parts/seed-1/history.jsonl", "seed 1 (1 of 2)"),
        ("parts/seed-1/metrics.json", "seed 1 (1 of 2)|seed 2 (2 of 2)"),
        ("parts/seed-2/history.jsonl", "seed 2 (2 of 2)"),
    ],
    ids=["in the first", "between", "in the second"],
)
def test_a_stop_in_or_between_the_parts_is_told_on_top(when: str, where: str, tmp_path: Path) -> None:
    code, said = stop(tmp_path / "run", when=when)
    assert code == 75, said
    status = read(tmp_path / "run" / "status.json")
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    assert status["reason"] in [f"stopped at {part}" for part in where.split("|")]
    assert status["reason"] in said
    assert said.rstrip().endswith(f"output_dir={tmp_path / 'run'}")


@pytest.mark.slow
def test_the_command_that_is_printed_goes_on_with_the_part_that_was_stopped(tmp_path: Path) -> None:
    _, said = stop(tmp_path / "run", when="parts/seed-2/history.jsonl")
    printed = said.rstrip().splitlines()[-1].strip()
    assert printed.startswith("python run.py train ")
    here = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    again = subprocess.run(printed, shell=True, cwd=ROOT, env=here, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert read(tmp_path / "run" / "status.json")["state"] == "finished"
    done = run("train", *LONGER, f"output_dir={tmp_path / 'whole'}", cwd=tmp_path)
    assert done.code == 0, done.stderr
    for seed in (1, 2):
        name = f"parts/seed-{seed}/model/model.safetensors"
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_lowest_loss_and_the_highest_accuracy_are_best() -> None:
    assert best_part([{"metric": "loss", "value": v} for v in (0.3, 0.1, 0.1)]) == 1
    assert best_part([{"metric": "accuracy", "value": v} for v in (0.3, 0.7, 0.7)]) == 1


def test_a_split_that_only_some_parts_have_gets_no_spread() -> None:
    both = summary(
        [{"validation": {"accuracy": 0.5, "rows": 3}, "test": {"accuracy": 0.1}}, {"validation": {"accuracy": 0.7}}],
        [1, 2],
    )
    assert "test" not in both
    assert both["validation"]["accuracy"]["values"] == [0.5, 0.7]
    assert "rows" not in both["validation"]
