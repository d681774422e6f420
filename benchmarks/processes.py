"""Two processes with one core each against one process with two: training of MiniLM on SST-2 sentences, in turns.

python benchmarks/processes.py [DATA] [--rounds 6] [--seconds 4] [--only bf16,fp32]

Both have the same 32 rows in each optimizer step; two processes share their gradients through gloo after each of them.
Ratios are medians of ratios inside one round. Needs two cores, and the machine for itself.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from common import options, parser, save, shared_data
from live import launch, ratios, speeds, spread

VARIANTS = {"1 process, 2 cores": (1, 2), "2 processes, 1 core each": (2, 1)}
"""Processes, and threads of each."""
PRECISIONS = ("bf16", "fp32")
GOAL = 0.9


def main() -> None:
    parser().set_defaults(rounds=6)
    chosen = options()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("skipped: needs two cores")
    data = shared_data("sst2_sentences") / "train.tsv"
    rows, turns = [], {}
    for precision in [name for name in PRECISIONS if name in chosen.only.split(",")] or PRECISIONS:
        with tempfile.TemporaryDirectory() as scratch:
            workers = [
                launch(
                    name, {"precision": precision}, Path(scratch), data=data, columns=("text", "label"), header=False,
                    max_length=128, processes=processes, threads=threads,
                )
                for name, (processes, threads) in VARIANTS.items()
            ]  # fmt: skip
            try:
                for worker in workers:
                    worker.wait()
                for number in range(chosen.rounds + 1):
                    for worker in workers:
                        worker.take_turn(seconds=chosen.seconds, is_first=number == 0)
                    print(f"{precision}: round {number} of {chosen.rounds}", flush=True)
            finally:
                for worker in workers:
                    worker.end()
        for worker in workers:
            found = ratios(worker, workers[0], "rows")
            peak = max(turn["peak_mb"] for turn in worker.turns)
            rows.append([
                precision, worker.name, f"{statistics.median(speeds(worker, 'rows')):.1f}", spread(found),
                f"{peak:.0f}", len(found), f"{statistics.median(turn['others'] for turn in worker.turns):.2f}",
            ])  # fmt: skip
            turns[f"{precision}, {worker.name}"] = worker.turns
    header = ["precision", "variant", "rows/s", "times the first, median (quartiles)", "peak MB in all", "turns",
              "cores of others"]  # fmt: skip
    title = f"Two processes with a core each against one with two (goal: {GOAL:g} times): MiniLM, SST-2 sentences"
    save("processes", title, header, rows, turns=turns)


if __name__ == "__main__":
    main()
