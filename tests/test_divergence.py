"""Runs that diverge, through the command line: what is written down, and going back by themselves."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from tests.command_line import Done, Started, run, start, start_all
from tests.tiny import TINY
from tests.tiny_runs import history, is_training, same, status, weights

SETTINGS = (
    *TINY,
    "model.dropout=0.1",
    "train.max_steps=16",
    "train.eval_every=4",
    "train.log_every=2",
    "train.first_token_only=off",  # it is tried before training, and calls are counted here
)
ROLLBACK = (*SETTINGS, "train.on_divergence=rollback")


def break_once() -> None:
    """Make the loss of one training step no number, on the process that ROTTEN names; 7th call of the objective."""
    from nlp_finetune.tasks.text_classification import Task

    given, calls = Task.objective, [0]

    def objective(self, loss):  # type: ignore[no-untyped-def]
        inner = given(self, loss)

        def rotten(model, batch, num_items):  # type: ignore[no-untyped-def]
            value, outputs = inner(model, batch, num_items)
            learns = value.requires_grad  # not where a model is only looked at
            calls[0] += learns
            mine = os.environ.get("RANK", "0") == os.environ.get("ROTTEN", "0")
            return (value * math.nan if calls[0] == 7 and mine and learns else value), outputs

        return rotten

    Task.objective = objective  # type: ignore[method-assign]


def numbers(folder: Path, *, bad: str) -> Path:
    """Rows of a regression, one of whose labels has no square in fp32."""
    file = folder / "rows.csv"
    lines = [f"text number {i} of many,{bad if i == 30 else i / 60}" for i in range(60)]
    file.write_text("text,label\n" + "\n".join(lines) + "\n")
    return file


def regression(folder: Path, *more: str, bad: str = "1e30") -> tuple[str, ...]:
    return (
        *TINY, f"data.source={numbers(folder, bad=bad)}", "task.problem=regression", "train.max_steps=12",
        "train.eval_every=3", *more, "output_dir=run",
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_a_row_that_spoils_the_run_is_named(engine: str, tmp_path: Path) -> None:
    done = run(*regression(tmp_path, f"train.engine={engine}"), cwd=tmp_path)
    assert done.code == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "1 of its 16 rows do so by themselves: row 31" in done.stderr
    assert "train.on_divergence=rollback" in done.stderr
    (entry,) = map(json.loads, (tmp_path / "run" / "divergence.jsonl").read_text().splitlines())
    assert [row["text"] for row in entry["offending"]] == ["text number 30 of many"]
    assert entry["looked_with"] == "the weights before the step"
    (batch,) = entry["batches"]
    assert len(batch["rows"]) == 16
    assert 31 in batch["rows"]
    assert status(tmp_path / "run")["state"] == "failed"


@pytest.mark.slow
def test_a_run_is_rolled_back_so_often_and_no_more(tmp_path: Path) -> None:
    settings = regression(tmp_path, "train.on_divergence=rollback", "train.max_rollbacks=2")
    done = run(*settings, cwd=tmp_path)
    assert done.code == 1, done.stderr
    assert done.stderr.count("rolled back to step") == 2
    assert "It was rolled back 2 time(s) already" in done.stderr
    assert "Traceback" not in done.stderr
    assert len((tmp_path / "run" / "divergence.jsonl").read_text().splitlines()) == 3


def broken(folder: Path, *more: str) -> Started:
    return start(*ROLLBACK, *more, "output_dir=run", cwd=folder, before=break_once)


@pytest.fixture(scope="module")
def rolled_back(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    folder = tmp_path_factory.mktemp("rolled")
    done = broken(folder).wait()
    assert done.code == 0, done.stderr
    return folder / "run", done


@pytest.mark.slow
def test_a_rollback_halves_the_rate_and_is_in_log_and_history(rolled_back: tuple[Path, Done]) -> None:
    folder, done = rolled_back
    assert "the gradient is no finite number in step 7" in done.stderr
    assert "None of its 16 rows does so by itself" in done.stderr
    assert "rolled back to step 4 (1 of at most 3 times)" in done.stderr
    lines = history(folder)
    (event,) = [line for line in lines if "rollback" in line]
    assert event["step"] == 4
    assert event["rollback"] == {"what": "gradient", "from_step": 7, "number": 1, "rate_times": 0.5}
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    rates = {line["step"]: line["learning_rate"] for line in lines if "loss" in line}
    planned = [1e-3 * (16 - step + 1) / 15 for step in (2, 4, 6, 8)]
    assert [rates[step] for step in (2, 4, 6, 8)] == pytest.approx(
        [planned[0], planned[1], planned[2] / 2, planned[3] / 2]
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_a_run_stopped_after_a_rollback_goes_on_as_if_it_had_not_been(
    engine: str, rolled_back: tuple[Path, Done], tmp_path: Path
) -> None:
    started = broken(tmp_path, f"train.engine={engine}")
    started.until(lambda: is_training(tmp_path / "run") and "rolled back" in started.stderr)
    started.until(lambda: (tmp_path / "run" / "checkpoints" / "step-8").is_dir())
    started.send(15)
    assert started.wait().code == 75
    done = run(*ROLLBACK, f"train.engine={engine}", "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert same(weights(tmp_path / "run"), weights(rolled_back[0]))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_one_process_that_diverges_takes_all_of_them_back(engine: str, tmp_path: Path) -> None:
    started = start_all(
        2, *ROLLBACK, f"train.engine={engine}", "output_dir=run", cwd=tmp_path, before=break_once,
        environment={"ROTTEN": "1"},
    )  # fmt: skip
    done = [one.wait() for one in started]
    assert [one.code for one in done] == [0, 0], done[0].stderr
    assert "the gradient is no finite number in step 6" in done[0].stderr  # one call looks for unused parameters
    assert "rolled back to step 4 (1 of at most 3 times)" in done[0].stderr
    (entry,) = map(json.loads, (tmp_path / "run" / "divergence.jsonl").read_text().splitlines())
    assert [batch["process"] for batch in entry["batches"]] == [0, 1]
    assert status(tmp_path / "run")["state"] == "finished"


def test_a_number_of_rollbacks_without_any_is_refused(tmp_path: Path) -> None:
    done = run(*SETTINGS, "train.max_rollbacks=5", "output_dir=run", cwd=tmp_path)
    assert done.code == 2
    assert "train.max_rollbacks" in done.stderr
    assert "it needs train.on_divergence: rollback" in done.stderr
