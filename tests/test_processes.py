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
CONFIGS = ROOT / "accelerate_configs"
DDP = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "ddp.yaml")]
FSDP = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "fsdp.yaml")]
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node"]

pytestmark = pytest.mark.slow


def start(folder: Path, launcher: list[str], *more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *launcher, str(ROOT / "run.py"), *SETTINGS, *more, f"output_dir={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [line.get("loss") or line["validation"]["loss"] for line in lines]


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
    ("launcher", "engine", "processes", "strategy"),
    [
        (DDP, "trainer", 2, "ddp"),
        (DDP, "accelerate", 2, "ddp"),
        ([*TORCHRUN, "3"], "trainer", 3, "ddp"),
        ([*TORCHRUN, "3"], "accelerate", 3, "ddp"),
        (FSDP, "trainer", 2, "fsdp"),
        (FSDP, "accelerate", 2, "fsdp"),
    ],
    ids=["ddp2-trainer", "ddp2-accelerate", "torchrun3-trainer", "torchrun3-accelerate", "fsdp-trainer", "fsdp-loop"],
)
def test_several_processes_give_the_run_of_one(
    launcher: list[str], engine: str, processes: int, strategy: str, alone: Path, tmp_path: Path
) -> None:
    # Neither the batch of 16 nor the data sets divide by 3.
    done = start(tmp_path / "run", launcher, f"train.engine={engine}")
    assert done.stdout.count("finished:") == 1
    assert done.stderr.count("strategy: ") == 1
    assert done.stderr.count("precision fp32") == 1
    recorded = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert (recorded["processes"], recorded["strategy"]) == (processes, strategy)
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (alone, tmp_path / "run"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
    assert scores(tmp_path / "run") == scores(alone)
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), abs=1e-5)
