"""Job scripts: written from a recipe, accepted by bash, run under a stand-in for Slurm with real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from nlp_finetune.cluster import jobs
from tests import command_line
from tests.cluster import standin
from tests.tiny import TINY

STEPS = ("train.max_steps=30", "train.eval_every=10", "train.log_every=1", "model.dropout=0.0")


def dry_run(folder: Path, *options: str, code: int = 0) -> command_line.Done:
    done = command_line.run(
        "launch", *options, "--recipe", "text_cls", "--run", folder / "run", "--dry-run", cwd=folder
    )
    assert done.code == code, done.stderr
    assert list(folder.iterdir()) == []
    return done


@pytest.mark.parametrize("kind", ["slurm", "torchrun"])
@pytest.mark.parametrize("more", [(), ("--seeds", "13,14"), ("--nodes", "4", "--gpus-per-node", "8", "--offline")])
def test_a_dry_run_prints_a_script_that_bash_accepts_and_writes_nothing(kind: str, more: tuple, tmp_path: Path) -> None:
    script = dry_run(tmp_path, kind, *more, "--strategy", "fsdp", "data.source=it's mine.csv").stdout
    checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert not re.search(r"@\{", script)
    assert "ACCELERATE_USE_FSDP=true" in script
    assert "'data.source=it'\"'\"'s mine.csv'" in script
    assert ("HF_HUB_OFFLINE=1" in script) == ("--offline" in more)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_script_asks_for_the_stage_of_deepspeed(stage: int, tmp_path: Path) -> None:
    script = dry_run(tmp_path, "slurm", "--strategy", f"zero{stage}").stdout
    assert f"export ACCELERATE_USE_DEEPSPEED=true ACCELERATE_DEEPSPEED_ZERO_STAGE={stage}\n" in script


def test_options_become_slurms_own(tmp_path: Path) -> None:
    options = ["--nodes", "4", "--gpus-per-node", "8", "--time", "02:00:00", "--partition", "gpu", "--account", "me"]
    options += ["--cpus-per-process", "6", "--mem", "100G", "--signal-before", "300", "--seeds", "1,2,3"]
    lines = dry_run(tmp_path, "slurm", *options).stdout.splitlines()
    given = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    expected = {
        "nodes=4", "ntasks-per-node=8", "gpus-per-node=8", "time=02:00:00", "partition=gpu", "account=me",
        "cpus-per-task=6", "mem=100G", "signal=USR1@300", "array=0-2", "requeue",
    }  # fmt: skip
    assert expected <= given


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["slurm", "--time", "soon"], "--time soon"),
        (["slurm", "--seeds", "1,x"], "--seeds 1,x"),
        (["slurm", "--seeds", "1,1"], "twice"),
        (["slurm", "--seeds", "1,2", "train.seed=3"], "give one of them"),
        (["slurm", "output_dir=x"], "--run FOLDER"),
        (["slurm", "--nodes", "0"], "--nodes 0"),
        (["torchrun", "--partition", "gpu"], "Slurm's"),
        (["slurm", "train.epoch=3"], "did you mean"),
        (["slurm", "--gpus-per-node", "4", "--processes-per-node", "2"], "one process for each GPU"),
    ],
)
def test_what_makes_no_job_is_refused(options: list[str], says: str, tmp_path: Path) -> None:
    assert says in dry_run(tmp_path, *options, code=2).stderr


def test_each_job_of_an_array_trains_its_own_seed(tmp_path: Path) -> None:
    job = jobs.Job("name", tmp_path / "run", ["--recipe", "text_cls"], seeds=[13, 14])
    script = tmp_path / "job.sh"
    (job.folder / "logs").mkdir(parents=True)
    script.write_text(jobs.slurm(job, file=script))
    commands = tmp_path / "bin"
    commands.mkdir()
    standin.install(commands)
    (commands / "srun").write_text('#!/bin/sh\necho "$@" >> "$STANDIN/called"\n')
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "STANDIN": str(tmp_path)}
    subprocess.run(["sbatch", str(script)], env=environment, check=True, capture_output=True)
    called = (tmp_path / "called").read_text().splitlines()
    assert ["doctor" in line for line in called] == [True, False, True, False]
    for seed, line in ((13, called[1]), (14, called[3])):
        assert f"train.seed={seed}" in line
        assert line.endswith(f"output_dir={tmp_path}/run/seed-{seed}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("alone")
    done = command_line.run(*TINY, *STEPS, f"output_dir={folder / 'run'}", cwd=folder)
    assert done.code == 0, done.stderr
    return load_file(folder / "run" / "model" / "model.safetensors")


def write(folder: Path, kind: str, *options: str) -> Path:
    done = command_line.run("launch", kind, *TINY, *STEPS, *options, "--run", folder / "run", cwd=folder)
    assert done.code == 0, done.stderr
    return folder / "run.job" / f"{kind}.sh"


def distance(one: dict, other: dict) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.slow
def test_a_slurm_job_on_two_nodes_is_preempted_requeued_and_finished(alone: dict, tmp_path: Path) -> None:
    script = write(tmp_path, "slurm", "--nodes", "2", "--timeout", "60", "--local-disk", str(tmp_path / "local"))
    commands = tmp_path / "bin"
    commands.mkdir()
    environment = {**os.environ, "STANDIN": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{standin.install(commands)}:{os.environ['PATH']}"
    (tmp_path / "signal").write_text(f"{tmp_path}/run/history.jsonl|12|SIGUSR1")
    done = subprocess.run(
        ["sbatch", str(script)], env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    log = (tmp_path / "run.job" / "logs" / f"text_cls-{standin.JOB}.log").read_text()
    assert done.returncode == 0, log
    # The doctor saw both processes each time, the first attempt saved, the second finished.
    assert log.count("all-reduce") == 2
    assert re.findall(r"training ended with (\d+)", log) == ["75", "0"]
    assert "attempt 2" in log
    ranks = [(tmp_path / "run.job" / "logs" / f"rank-{rank}.log").read_text() for rank in (0, 1)]
    assert "stopped by SIGUSR1" in ranks[0]
    assert "going on from" in ranks[0]
    assert "strategy:" not in ranks[1]
    assert list((tmp_path / "local").glob("datasets/nlp_finetune/*.arrow"))
    assert distance(load_file(tmp_path / "run" / "model" / "model.safetensors"), alone) < 1e-5


@pytest.mark.slow
def test_a_torchrun_script_hands_signals_to_those_who_train(alone: dict, tmp_path: Path) -> None:
    script = write(tmp_path, "torchrun", "--processes-per-node", "2", "--timeout", "60")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "USER": "somebody", "MASTER_PORT": "29620"}
    with open(tmp_path / "log", "w") as log:
        job = subprocess.Popen(["bash", str(script)], env=environment, stdout=log, stderr=log, cwd=tmp_path)
        history = tmp_path / "run" / "history.jsonl"
        end = time.monotonic() + 180
        while not history.is_file() or len(history.read_text().splitlines()) < 12:
            assert job.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(60) == 75, (tmp_path / "log").read_text()
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    assert "stopped by SIGUSR1" in (tmp_path / "log").read_text()
    again = command_line.run(*TINY, *STEPS, f"output_dir={tmp_path / 'run'}", cwd=tmp_path)
    assert again.code == 0, again.stderr
    assert distance(load_file(tmp_path / "run" / "model" / "model.safetensors"), alone) < 1e-5


def test_a_script_that_somebody_else_wrote_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "run.job" / "slurm.sh"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    done = command_line.run("launch", "slurm", "--recipe", "text_cls", "--run", tmp_path / "run", cwd=tmp_path)
    assert (done.code, theirs.read_text()) == (2, "mine"), sys.version
