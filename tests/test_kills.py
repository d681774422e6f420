"""Runs that are killed with SIGKILL: the finished weights are those of the run that never was, bit for bit.

`benchmarks/kills.py` does the same at random moments, fifty times.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.tiny_runs import (
    AUGMENTED,
    AVERAGED,
    GRADUAL,
    IMAGES,
    LORA,
    MASKED,
    SENTENCES,
    finish,
    history,
    same,
    start,
    wait,
    weights,
)

pytestmark = pytest.mark.slow


def in_a_step(run: Path) -> bool:
    return len(history(run)) >= 14


def in_an_evaluation(run: Path) -> bool:
    # The loss of the step is written down just before its evaluation begins.
    return bool(history(run)) and history(run)[-1]["step"] == 20 and "loss" in history(run)[-1]


def in_the_writing_of_a_checkpoint(run: Path) -> bool:
    return (run / "checkpoints" / ".step-30.partial").exists()


def in_the_final_save(run: Path) -> bool:
    saved = (run / "checkpoints" / "step-40").is_dir()
    return saved and ((run / ".model.partial").exists() or (run / "model").exists())


Moment = Callable[[Path], bool]


def kill(folder: Path, *arguments: str, moment: Moment, processes: int = 1) -> None:
    started = start(folder, *arguments, processes=processes)
    started[0].until(lambda: moment(folder / "run"))
    for one in started:
        one.process.kill()
    wait(started)
    assert not (folder / "run" / "metrics.json").exists()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("whole")
    finish(folder, *SENTENCES)
    return weights(folder / "run")


@pytest.mark.parametrize(
    ("engine", "moments", "step"),
    [
        ("trainer", (in_an_evaluation, in_the_final_save), 40),
        ("accelerate", (in_a_step, in_the_writing_of_a_checkpoint), 20),
    ],
    ids=["trainer", "accelerate"],
)
def test_a_run_that_is_killed_twice_ends_bit_for_bit_the_same(
    engine: str, moments: tuple[Moment, ...], step: int, uninterrupted: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    arguments = (*SENTENCES, f"train.engine={engine}")
    for moment in moments:
        kill(tmp_path, *arguments, moment=moment)
    assert f"going on from run/checkpoints/step-{step}" in finish(tmp_path, *arguments)
    assert same(weights(tmp_path / "run"), uninterrupted)
    assert [entry["step"] for entry in history(tmp_path / "run") if "validation" in entry] == [10, 20, 30, 40]
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_a_run_on_changed_and_mixed_rows_of_balanced_classes_survives_a_kill_and_another_engine(
    uninterrupted: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    kill(killed, *AUGMENTED, "train.engine=accelerate", moment=in_a_step)
    assert "going on from" in finish(killed, *AUGMENTED, "train.engine=trainer")
    finish(whole, *AUGMENTED, "train.engine=accelerate")
    assert same(weights(killed / "run"), weights(whole / "run"))
    assert not same(weights(killed / "run"), uninterrupted)


@pytest.mark.parametrize(
    ("arguments", "moment", "processes"),
    [
        ((*LORA, "train.engine=trainer"), in_the_writing_of_a_checkpoint, 2),
        ((*MASKED, "train.engine=accelerate"), in_a_step, 2),
        ((*GRADUAL, "train.engine=trainer"), in_the_writing_of_a_checkpoint, 1),
        ((*AVERAGED, "train.engine=accelerate"), in_an_evaluation, 1),
        ((*IMAGES, "train.engine=accelerate"), in_a_step, 1),
    ],
    ids=["lora", "masked_lm", "gradual unfreezing", "moving average", "images"],
)
def test_what_a_run_holds_beside_its_weights_survives_a_kill(
    arguments: tuple[str, ...], moment: Moment, processes: int, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    kill(killed, *arguments, moment=moment, processes=processes)
    assert "going on from" in finish(killed, *arguments, processes=processes)
    finish(whole, *arguments, processes=processes)
    assert same(weights(killed / "run"), weights(whole / "run"))
