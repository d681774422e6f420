"""Several processes through the command line: one run, the same numbers, one result."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.engines.test_zero import needs_deepspeed
from tests.tiny import TINY

ROOT = Path(__file__).resolve().parent.parent
# Shards compute whole blocks, and what that changes in the last digits Adam makes larger.
SETTINGS = (*TINY, "train.max_steps=12", "train.eval_every=6", "model.dropout=0.0", "train.first_token_only=off")
CONFIGS = ROOT / "accelerate_configs"
DDP = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "ddp.yaml")]
FSDP = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "fsdp.yaml")]
ZERO2, ZERO3 = (
    ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / f"deepspeed_zero{stage}.yaml")]
    for stage in (2, 3)
)
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node"]

pytestmark = pytest.mark.slow


def start(folder: Path, launcher: list[str], *more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *launcher, str(ROOT / "run.py"), *SETTINGS, *more, f"output_dir={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize(
    ("config", "engine"),
    [
        ("ddp.yaml", "trainer"),
        ("ddp.yaml", "accelerate"),
        ("fsdp.yaml", "trainer"),
        ("fsdp.yaml", "accelerate"),
        pytest.param("deepspeed_zero2.yaml", "trainer", marks=needs_deepspeed),
        pytest.param("deepspeed_zero3.yaml", "trainer", marks=needs_deepspeed),
    ],
)
def test_two_gpus_give_the_run_of_one(
    config: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    settings = [f"train.engine={engine}", "train.precision=fp32"]
    launcher = ["-m", "accelerate.commands.launch", "--config_file"]
    start(tmp_path / "one", [*launcher, str(CONFIGS / "single_gpu.yaml")], *settings)
    start(tmp_path / "two", [*launcher, str(CONFIGS / config)], *settings)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4


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


@needs_deepspeed
@pytest.mark.parametrize(("launcher", "name"), [(ZERO2, "zero2"), (ZERO3, "zero3")], ids=["zero2", "zero3"])
def test_deepspeed_gives_the_run_of_one(launcher: list[str], name: str, alone: Path, tmp_path: Path) -> None:
    done = start(tmp_path / "run", launcher)
    assert f"strategy: DeepSpeed ZeRO-{name[-1]}" in done.stderr
    recorded = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert (recorded["processes"], recorded["strategy"]) == (2, name)
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (alone, tmp_path / "run"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
    assert scores(tmp_path / "run") == scores(alone)
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), abs=1e-5)


@pytest.mark.parametrize(
    ("launcher", "says"),
    [
        pytest.param(FSDP, "FSDP2: 2 x BertLayer", id="fsdp"),
        pytest.param(ZERO3, "DeepSpeed ZeRO-3", id="zero3", marks=needs_deepspeed),
    ],
)
def test_a_run_of_one_process_goes_on_in_shards(launcher: list[str], says: str, alone: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), *SETTINGS, "train.save_every=2", f"output_dir={tmp_path / 'run'}"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    while not (tmp_path / "run" / "checkpoints" / "step-4").is_dir():
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 75
    done = start(tmp_path / "run", launcher, "train.save_every=2")
    assert "going on from" in done.stderr
    assert says in done.stderr
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (alone, tmp_path / "run"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
    assert scores(tmp_path / "run") == scores(alone)


def test_one_process_tokenizes_and_the_others_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    start(tmp_path / "run", [*TORCHRUN, "3"])
    caches = sorted((tmp_path / "cache" / "nlp_finetune").iterdir())
    assert len(caches) == 3  # one for each split, nothing half-written beside them
