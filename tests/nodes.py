"""Two machines in one: two network namespaces, joined by a cable that can be pulled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PORT = 29400


@dataclass(frozen=True)
class Cable:
    """Two network namespaces that see each other and nothing else."""

    tag: str
    net: str = "10.77.0"

    @property
    def spaces(self) -> tuple[str, str]:
        return f"{self.tag}a", f"{self.tag}b"

    def address(self, node: int) -> str:
        return f"{self.net}.{node + 1}"

    def inside(self, node: int) -> list[str]:
        """Words before a command that runs on this node."""
        return ["ip", "netns", "exec", self.spaces[node]]

    def set(self, state: str) -> None:
        """Plug the cable in (`up`) or pull it (`down`): nobody is told, packets are lost."""
        _ip("-n", self.spaces[1], "link", "set", f"v{self.spaces[1]}", state)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def two_namespaces(net: str = "10.77.0") -> Iterator[Cable]:
    """Two machines in the network `net`.

    Raises `OSError` or `CalledProcessError` where network namespaces are not allowed.
    """
    cable = Cable(f"n{os.getpid() % 100000}", net)
    try:
        for space in cable.spaces:
            _ip("netns", "add", space)
        one, two = cable.spaces
        _ip("link", "add", f"v{one}", "netns", one, "type", "veth", "peer", "name", f"v{two}", "netns", two)
        for node, space in enumerate(cable.spaces):
            _ip("-n", space, "addr", "add", f"{cable.address(node)}/24", "dev", f"v{space}")
            _ip("-n", space, "link", "set", f"v{space}", "up")
            _ip("-n", space, "link", "set", "lo", "up")
        yield cable
    finally:
        for space in cable.spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True)


class Node:
    """One of two machines with its launcher and its one process of a training."""

    def __init__(self, cable: Cable, number: int, arguments: list[str], log: Path) -> None:
        command = [
            *cable.inside(number), sys.executable, "-m", "accelerate.commands.launch",
            "--config_file", str(ROOT / "accelerate_configs" / "multi_node_ddp.yaml"),
            "--num_machines", "2", "--num_processes", "2", "--machine_rank", str(number),
            "--main_process_ip", cable.address(0), "--main_process_port", str(PORT),
            str(ROOT / "run.py"), "train", *arguments,
        ]  # fmt: skip
        self.space, self.log = cable.spaces[number], log
        with open(log, "w") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT)

    def kill(self) -> None:
        """Power off: everything on the node ends at once."""
        listed = subprocess.run(["ip", "netns", "pids", self.space], check=True, capture_output=True, text=True)
        for number in listed.stdout.split():
            os.kill(int(number), signal.SIGKILL)
        self.process.wait()

    def end(self, timeout_s: float) -> int:
        """Exit code of the launcher."""
        return self.process.wait(timeout_s)

    @property
    def output(self) -> str:
        return self.log.read_text()


def step_of(run: Path) -> int:
    """The last step in a run's history."""
    file = run / "history.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def wait_for_step(run: Path, step: int, nodes: list[Node], timeout_s: float = 180) -> None:
    """Wait until training has come so far. Raises where it ends before."""
    end = time.monotonic() + timeout_s
    while step_of(run) < step:
        for node in nodes:
            if node.process.poll() is not None:
                raise RuntimeError(f"a node ended early:\n{node.output[-3000:]}")
        if time.monotonic() > end:
            raise TimeoutError(nodes[0].output[-3000:])
        time.sleep(0.05)
