"""Several processes through the command line: one run, the same numbers, one result."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.tiny import TINY

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = (*TINY, "train.max_steps=12", "train.eval_every=6", "model.dropout=0.0")
DDP = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "accelerate_configs" / "ddp.yaml")]

pytestmark = pytest.mark.slow


def start(folder: Path, launcher: list[str], *more: str) -> str:
    command = [sys.executable, *launcher, str(ROOT / "run.py"), *SETTINGS, *more, f"output_dir={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def scores(folder: Path) -> dict:
    # Sums over processes round in another order: compare to five digits.
    text = (folder / "metrics.json").read_text()
    found = json.loads(text, parse_float=lambda number: round(float(number), 5))
    return {name: found[name] for name in ("best", "validation", "test")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    start(folder, [])
    return folder


@pytest.mark.parametrize(
    ("launcher", "engine"),
    [(DDP, "trainer"), (DDP, "accelerate"), (["-m", "torch.distributed.run", "--nproc_per_node", "2"], "trainer")],
    ids=["accelerate-trainer", "accelerate-accelerate", "torchrun-trainer"],
)
def test_two_processes_give_the_run_of_one(launcher: list[str], engine: str, alone: Path, tmp_path: Path) -> None:
    printed = start(tmp_path / "run", launcher, f"train.engine={engine}")
    assert printed.count("finished:") == 1
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["processes"] == 2
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (alone, tmp_path / "run"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
    assert scores(tmp_path / "run") == scores(alone)
