"""Runs that are asked to stop, by real signals to real processes, and go on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nlp_finetune.runs import checkpoints
from tests.command_line import start as start_command
from tests.tiny import TINY
from tests.tiny_runs import SENTENCES, finish, history, same, start, status, stop, wait, weights

ROOT = Path(__file__).resolve().parent.parent
SOON_S = 10
"""Far more than a stop takes where nothing else runs, and far less than what it does not wait for."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("whole")
    finish(folder, *SENTENCES)
    return weights(folder / "run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_exits_75_and_says_what_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    (done,) = stop(tmp_path, *SENTENCES, lines=14, number=number)
    assert done.code == 75, done.stderr
    assert f"stopped by {number.name}" in done.stderr
    assert done.stderr.rstrip().endswith("output_dir=run")
    assert "python run.py --recipe text_cls" in done.stderr
    found = status(tmp_path / "run")
    assert (found["state"], found["exit_code"]) == ("stopped", 75)
    assert (tmp_path / "run" / "checkpoints" / f"step-{found['step']}").is_dir()
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("engines", [("trainer", "accelerate"), ("accelerate", "trainer")])
def test_a_stopped_run_goes_on_bit_for_bit_with_either_engine(
    engines: tuple[str, str], uninterrupted: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    stop(tmp_path, *SENTENCES, f"train.engine={engines[0]}", lines=14)
    log = finish(tmp_path, *SENTENCES, f"train.engine={engines[1]}")
    assert f"going on with another train.engine: {engines[0]} -> {engines[1]}" in log
    assert same(weights(tmp_path / "run"), uninterrupted)


@pytest.fixture(scope="module")
def long_validation(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Arguments of a run whose evaluations take much longer than its steps: 600 batches of one row."""
    folder = tmp_path_factory.mktemp("data")
    for name, rows in (("train", 64), ("validation", 600)):
        with open(folder / f"{name}.csv", "w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["text", "label"])
            writer.writerows([f"{name} row {i} is {'good' if i % 2 else 'bad'}", i % 2] for i in range(rows))
    files = [f"data.{name}={folder / name}.csv" for name in ("train", "validation")]
    sizes = ["train.max_steps=4", "train.eval_every=2", "train.eval_batch_size=1", "train.log_every=1"]
    return (*(a for a in TINY if not a.startswith("data.")), *files, *sizes, "model.dropout=0.1")


@pytest.mark.parametrize(("engine", "processes"), [("trainer", 2), ("accelerate", 1)])
def test_a_long_evaluation_is_left_at_once_on_all_processes_and_done_on_resume(
    engine: str, processes: int, long_validation: tuple[str, ...], tmp_path: Path
) -> None:
    arguments = (*long_validation, f"train.engine={engine}")
    started = start(tmp_path, *arguments, processes=processes)
    started[0].until(lambda: any(entry["step"] == 2 for entry in history(tmp_path / "run")))
    asked = time.monotonic()
    started[-1].send(signal.SIGTERM)  # one process is asked, all of them stop
    done = wait(started, timeout_s=60)
    assert [one.code for one in done] == [75] * processes, done[0].stderr
    assert time.monotonic() - asked < SOON_S
    saved = checkpoints.load_callbacks(tmp_path / "run" / "checkpoints" / "step-2")
    assert saved["evaluation_pending"]
    assert "the evaluation that was interrupted comes first" in finish(tmp_path, *arguments, processes=processes)
    evaluations = [entry["step"] for entry in history(tmp_path / "run") if "validation" in entry]
    assert evaluations == [2, 4]


def test_a_stop_during_preparation_ends_it_at_once_and_leaves_no_half_run(tmp_path: Path) -> None:
    (started,) = start(tmp_path, *SENTENCES)
    started.until(lambda: "strategy:" in started.stderr)
    asked = time.monotonic()
    started.send(signal.SIGTERM)
    done = started.wait(60)
    assert done.code == 75, done.stderr
    assert time.monotonic() - asked < SOON_S
    assert "there was nothing to save" in done.stderr
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["status.json"]
    assert status(tmp_path / "run")["exit_code"] == 75
    finish(tmp_path, *SENTENCES)


def test_a_stop_during_the_final_scores_trains_nothing_again(long_validation: tuple[str, ...], tmp_path: Path) -> None:
    (started,) = start(tmp_path, *long_validation)
    started.until(lambda: (tmp_path / "run" / "checkpoints" / "step-4").is_dir())
    started.send(signal.SIGTERM)
    assert started.wait(60).code == 75
    steps = len(history(tmp_path / "run"))
    assert "going on from run/checkpoints/step-4 (step 4 of 4)" in finish(tmp_path, *long_validation)
    assert len(history(tmp_path / "run")) == steps


def test_a_time_limit_stops_like_a_signal(tmp_path: Path) -> None:
    limited = (*SENTENCES, "train.max_steps=100000", "train.max_time=4s")
    (done,) = wait(start(tmp_path, *limited), timeout_s=60)
    assert done.code == 75, done.stderr
    assert "stopped by train.max_time=4s" in done.stderr


def slow_renames() -> None:
    rename = os.replace

    def slowly(source: str, target: str) -> None:
        if "step-" in str(source):
            time.sleep(20)
        rename(source, target)

    os.replace = slowly  # type: ignore[assignment]


def test_a_second_ctrl_c_stops_at_once_without_harm_even_in_a_slow_rename(
    uninterrupted: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    stop(tmp_path, *SENTENCES, lines=14)
    started = start_command(*SENTENCES, "output_dir=run", cwd=tmp_path, before=slow_renames)
    started.until(lambda: len(history(tmp_path / "run")) >= 18)
    started.send(signal.SIGINT)
    started.until(lambda: bool(list((tmp_path / "run" / "checkpoints").glob(".step-*.partial/manifest.json"))))
    time.sleep(1.1)
    asked = time.monotonic()
    started.send(signal.SIGINT)
    assert started.wait(60).code == 130
    assert time.monotonic() - asked < SOON_S
    finish(tmp_path, *SENTENCES)
    assert same(weights(tmp_path / "run"), uninterrupted)


def test_processes_may_be_more_or_fewer_on_resume(tmp_path: Path) -> None:
    arguments = (*SENTENCES, "model.dropout=0.0", "train.max_steps=120", "train.eval_every=40")
    whole, changed = tmp_path / "whole", tmp_path / "changed"
    whole.mkdir()
    changed.mkdir()
    finish(whole, *arguments)
    stop(changed, *arguments, lines=10)
    done = stop(changed, *arguments, lines=50, processes=2)
    assert "1 -> 2 processes" in done[0].stderr
    assert "2 -> 1 processes" in finish(changed, *arguments)
    one, other = ({e["step"]: e["loss"] for e in history(f / "run") if "loss" in e} for f in (whole, changed))
    assert other == pytest.approx(one, rel=2e-5)
    before, after = weights(whole / "run"), weights(changed / "run")
    assert max(float((before[name] - after[name]).abs().max()) for name in before) < 5e-5


def test_ctrl_c_in_a_terminal_reaches_workers_twice_and_counts_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", str(29500 + os.getpid() % 2000)]
    command += [str(ROOT / "run.py"), *SENTENCES, "train.max_steps=2000", f"output_dir={tmp_path / 'run'}"]
    launcher = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, start_new_session=True
    )
    try:
        end = time.monotonic() + 120
        while len(history(tmp_path / "run")) < 5:
            assert time.monotonic() < end
            assert launcher.poll() is None
            time.sleep(0.05)
        os.killpg(launcher.pid, signal.SIGINT)  # what a terminal does; torchrun sends it to its workers once more
        launcher.wait(60)
    finally:
        launcher.kill()  # its workers end with it
        launcher.wait()
    assert status(tmp_path / "run")["exit_code"] == 75
    assert checkpoints.newest(tmp_path / "run" / "checkpoints", print) is not None


def test_a_worker_ends_when_its_launcher_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", str(ROOT / "run.py"), *SENTENCES]
    command += ["train.max_steps=2000", f"output_dir={tmp_path / 'run'}"]
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        end = time.monotonic() + 120
        while len(history(tmp_path / "run")) < 5:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        launcher.kill()
        launcher.wait()
    end = time.monotonic() + 30
    while status(tmp_path / "run")["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.1)
    assert status(tmp_path / "run")["exit_code"] == 75


def test_accelerate_launch_trains_to_the_same_numbers(uninterrupted: dict[str, torch.Tensor], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += [str(ROOT / "accelerate_configs" / "cpu.yaml"), str(ROOT / "run.py"), *SENTENCES]
    done = subprocess.run(
        [*command, f"output_dir={tmp_path / 'run'}"], capture_output=True, text=True, cwd=ROOT, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert same(weights(tmp_path / "run"), uninterrupted)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())
