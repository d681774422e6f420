"""The commands of docs/cluster.md, each run as it is printed.

What is swapped is what the page says: the recipe, `/shared`, and GPUs for processes where there are none. Machines are
network namespaces, Slurm is the stand-in of `standin`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nlp_finetune.recipe import to_yaml
from tests.cluster import standin
from tests.nodes import ROOT, Cable, two_namespaces
from tests.tiny import TINY

PAGE = (ROOT / "docs" / "cluster.md").read_text("utf-8")
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    ")]


def swapped(command: str, place: Path) -> str:
    """A command with what the page says is the reader's own."""
    command = command.replace("--recipe text_cls --demo", "--recipe text_cls")
    command = command.replace("--recipe text_cls", f"--recipe {place}/own.yaml")
    return command.replace("/shared", f"{place}/shared").replace("--gpus-per-node 4", "--processes-per-node 1")


def on_machine(command: str, number: int) -> str:
    """The same command on another machine."""
    return command.replace("--machine_rank 0", f"--machine_rank {number}").replace("NODE_RANK=0", f"NODE_RANK={number}")


def test_the_page_says_what_is_swapped() -> None:
    assert "`--recipe text_cls` stands for your recipe" in PAGE
    assert "`/shared` for a folder that all machines see" in PAGE
    assert "without GPUs `--processes-per-node N`" in PAGE


def test_every_command_of_the_page_is_of_a_kind_that_is_run_here() -> None:
    programs = {command.split()[0] for command in COMMANDS}
    assert programs == {"python", "torchrun", "accelerate", "NODE_RANK=0"}
    assert len(COMMANDS) == len(set(COMMANDS)) == 10


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    try:
        with two_namespaces(net="10.0.0") as joined:
            yield joined
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces are not allowed here: {error}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the checkout's files that the commands name, a recipe, and Slurm's commands."""
    place = tmp_path_factory.mktemp("page")
    for name in ("run.py", "accelerate_configs"):
        (place / name).symlink_to(ROOT / name)
    (place / "shared").mkdir()
    (place / "bin").mkdir()
    standin.install(place / "bin")
    # The launcher's module: its program imports timm, and so a torchvision that does not load beside a CPU build.
    launcher = place / "bin" / "accelerate"
    launcher.write_text('#!/bin/sh\nshift\nexec python -m accelerate.commands.launch "$@"\n')
    launcher.chmod(0o755)
    from nlp_finetune.recipe import load
    from nlp_finetune.tasks import base

    settings = [*TINY[2:], "train.max_steps=4", "train.eval_every=4"]
    recipe = load("text_cls", overrides=settings, task_options=base.options_of, task_names=base.names()).recipe
    (place / "own.yaml").write_text(to_yaml(recipe))
    return place


def run(command: str, machine: int, cable: Cable, place: Path) -> subprocess.Popen:
    """Start a command in a shell on a machine."""
    path = f"{place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "STANDIN": str(place), "OMP_NUM_THREADS": "1", "USER": "somebody"}
    environment.pop("ACCELERATE_USE_CPU", None)
    words = [*cable.inside(machine), "bash", "-c", command]
    with open(place / f"machine{machine}.log", "w") as log:
        return subprocess.Popen(words, cwd=place, env=environment, stdout=log, stderr=subprocess.STDOUT)


@pytest.mark.slow
@pytest.mark.parametrize("printed", COMMANDS)
def test_a_command_runs_as_printed(printed: str, cable: Cable, place: Path) -> None:
    command = swapped(printed, place)
    several = "--machine_rank 0" in command or command.startswith("NODE_RANK=0")
    runs = [word.removeprefix("output_dir=") for word in command.split() if word.startswith("output_dir=")]
    if command.startswith("NODE_RANK=0"):
        runs = [f"{place}/shared/run"]
    if command.endswith("--submit"):
        runs = [f"{place}/shared/reviews"]
    for folder in runs:
        shutil.rmtree(place / folder, ignore_errors=True)  # of the command before: this one trains by itself
    started = [run(on_machine(command, number), number, cable, place) for number in ((0, 1) if several else (0,))]
    codes = [one.wait(400) for one in started]
    logs = [(place / f"machine{number}.log").read_text() for number in range(len(started))]
    if command.endswith("run.py doctor"):
        # Too little disk, say, is exit code 1; what counts here is that it ends in a diagnosis.
        assert codes[0] in (0, 1), logs[0]
        assert "versions" in logs[0], logs[0]
        return
    assert codes == [0] * len(codes), "\n".join(logs)
    for folder in runs:
        assert json.loads((place / folder / "status.json").read_text())["state"] == "finished", logs[0]
