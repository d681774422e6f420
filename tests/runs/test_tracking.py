"""Experiment trackers: what they get, in both engines, and what happens where one is missing."""

import importlib.util
import json
from pathlib import Path

import pytest

from nlp_finetune.errors import InputError
from nlp_finetune.runs import tracking
from tests.command_line import run
from tests.tiny import TINY


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"mlflow and trackio are not installed. pip install mlflow trackio"):
        tracking.check_installed(["mlflow", "trackio"])


@pytest.mark.parametrize("name", ["mlflow", "trackio", "wandb"])
def test_training_with_a_tracker_that_is_not_there_stops_before_anything_is_written(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed here")
    done = run(*TINY, f"train.report_to=[{name}]", "output_dir=run", cwd=tmp_path)
    assert done.code == 2
    assert f"pip install {name}" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_nobody_knows_is_refused_with_the_names_of_those_there_are(tmp_path: Path) -> None:
    done = run(*TINY, "train.report_to=[tensorbord]", cwd=tmp_path)
    assert done.code == 2
    assert "tensorboard" in done.stderr
    assert "train.report_to" in done.stderr


def test_a_run_without_trackers_has_none() -> None:
    assert tracking.tracker_callbacks([], Path("run")) == []


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads from its files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_tensorboard_gets_the_history_of_either_engine(engine: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    done = run(
        *TINY, "train.report_to=[tensorboard]", "train.max_steps=6", "train.eval_every=3", "train.log_every=1",
        f"train.engine={engine}", "output_dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    found = scalars(tmp_path / "run" / "tensorboard")
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    losses = [(h["step"], h["loss"]) for h in history if "loss" in h]
    scores = [(h["step"], h["validation"]["accuracy"]) for h in history if "validation" in h]
    assert [step for step, _ in found["train/loss"]] == [step for step, _ in losses] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in found["train/loss"]] == pytest.approx([value for _, value in losses])
    assert [step for step, _ in found["eval/accuracy"]] == [3, 6]
    assert [value for _, value in found["eval/accuracy"]] == pytest.approx([value for _, value in scores])
    assert {"train/grad_norm", "train/learning_rate", "eval/loss"} <= set(found)


@pytest.mark.slow
def test_trackers_are_given_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    done = run(*TINY, "train.report_to=[tensorboard]", "train.max_steps=2", "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or b"hf_secretsecret" not in file.read_bytes(), file
