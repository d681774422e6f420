"""Runs that are killed, interrupted or preempted, with real processes and real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.tiny import TINY

ROOT = Path(__file__).resolve().parent.parent
STEPS = ("train.max_steps=60", "train.eval_every=10", "model.dropout=0.1", "train.micro_batch_size=8")

pytestmark = pytest.mark.slow


def start(folder: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "run.py"), *TINY, *STEPS, f"output_dir={folder / 'run'}", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)


def finish(folder: Path, *more: str) -> dict:
    process = start(folder, *more)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    return load_file(folder / "run" / "model" / "model.safetensors")


def wait_for(condition, process: subprocess.Popen, timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def step_of(folder: Path) -> int:
    file = folder / "run" / "history.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return finish(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_a_killed_run_goes_on_bit_for_bit(engine: str, uninterrupted: dict, tmp_path: Path) -> None:
    for least in (10, 30):
        process = start(tmp_path, f"train.engine={engine}")
        wait_for(lambda: step_of(tmp_path) >= least, process)  # noqa: B023  called in this round only
        process.kill()
        process.communicate()
        assert not (tmp_path / "run" / "model").exists()
    assert same(finish(tmp_path, f"train.engine={engine}"), uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_exits_75_and_the_same_command_goes_on(
    number: signal.Signals, uninterrupted: dict, tmp_path: Path
) -> None:
    process = start(tmp_path)
    wait_for(lambda: step_of(tmp_path) >= 10, process)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75, out
    assert f"stopped by {number.name}" in out
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    assert (tmp_path / "run" / "checkpoints" / f"step-{status['step']}").is_dir()
    assert not (tmp_path / "run" / "model").exists()
    assert same(finish(tmp_path), uninterrupted)


def test_either_engine_goes_on_from_the_other(uninterrupted: dict, tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for(lambda: step_of(tmp_path) >= 20, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    saved = tmp_path / "run" / "recipe.yaml"
    saved.write_text(saved.read_text().replace("engine: trainer", "engine: accelerate"))
    assert same(finish(tmp_path, "train.engine=accelerate"), uninterrupted)


def test_a_worker_ends_when_its_launcher_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", str(ROOT / "run.py"), *TINY]
    command += [
        "train.max_steps=2000",
        "train.save_every=1000",
        "train.eval_every=1000",
        f"output_dir={tmp_path / 'run'}",
    ]
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    end = time.monotonic() + 120
    while step_of(tmp_path) < 10:
        assert time.monotonic() < end
        time.sleep(0.05)
    launcher.kill()
    launcher.wait()
    end = time.monotonic() + 30
    while (status := json.loads((tmp_path / "run" / "status.json").read_text()))["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.1)
    assert status["exit_code"] == 75


def test_accelerate_launch_trains_to_the_same_numbers(uninterrupted: dict, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += [str(ROOT / "accelerate_configs" / "cpu.yaml"), str(ROOT / "run.py"), *TINY, *STEPS]
    done = subprocess.run(
        [*command, f"output_dir={tmp_path / 'run'}"], capture_output=True, text=True, cwd=ROOT, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert same(load_file(tmp_path / "run" / "model" / "model.safetensors"), uninterrupted)
    assert os.path.isfile(tmp_path / "run" / "metrics.json")
