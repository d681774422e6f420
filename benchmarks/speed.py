"""Training speed against a tuned transformers.Trainer: live processes take turns, so that noise meets all of them.

python benchmarks/speed.py [DATA] [--rounds 15] [--only NAME,NAME] [--seconds 4]

Every variant is a process that trains. In each round each of them in turn takes as many optimizer steps as last about
`--seconds`, while the others wait; a figure is the median over rounds, a ratio the median of ratios inside one round.
Tokens are those without padding. A turn in which other programs used more than an eighth of a core is taken again,
three times at most. Run it alone on the machine; where that can't be, `--cpu-seconds` counts the process's own.

On a machine with a GPU they train on it, memory is the GPU's, and results are speed_gpu.*: there `ours compiled` is the
variant to look at, and is no default on a CPU.

The rival is what the best command line of transformers' run_glue.py does: padding to the batch, batches grouped by
length, bf16, freed memory kept. `default command line` is that program as it comes: rows padded to the longest that is
allowed, fp32. `speed_workers.py` has both sides.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, gpu, options, save, shared_data
from live import Worker, draw, launch, quartiles, threads

OFF = {"packing": "off", "compact_vocabulary": "off", "fast_dropout": "off", "first_token_only": "off"}
VARIANTS: dict[str, dict[str, str] | str] = {
    "rival": "tuned",
    "default command line": "default",
    "ours": {},
    "ours by tokens": {"max_tokens": "4096"},
    "ours by tokens and packed": {"max_tokens": "4096", "packing": "on"},
    "ours without memory kept": {"keeps_memory": "no"},
    "bare": OFF,
    "compact vocabulary alone": {**OFF, "compact_vocabulary": "on"},
    "fast dropout alone": {**OFF, "fast_dropout": "on"},
    "first token alone": {**OFF, "first_token_only": "on"},
    "packing alone": {**OFF, "packing": "on"},
    "packing and fast dropout": {**OFF, "packing": "on", "fast_dropout": "on"},
    "packing and fast dropout in random order": {**OFF, "packing": "on", "fast_dropout": "on", "bucket": "false"},
    "bare in random order": {**OFF, "bucket": "false"},
    "ours in fp32": {"precision": "fp32"},
    "ours packed": {"packing": "on"},
    "ours compiled": {"compile": "on"},
    "LoRA of rank 8": {"lora.rank": "8"},
    "LoRA of rank 8 without dropout": {"lora.rank": "8", "lora.dropout": "0"},
    "LoRA of rank 8 on query and value": {"lora.rank": "8", "lora.targets": "[query, value]"},
}
"""Settings of `train` by variant, or of any section by their whole names; a word is a rival, which trains all weights.
The first is what the others are compared with.

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


def main() -> None:
    chosen = options()
    names = chosen.only.split(",") if chosen.only else [*VARIANTS]
    works = [name for name in WORKS if name in names] or [*WORKS]
    variants = [name for name in VARIANTS if name in names] or [*VARIANTS]
    if unknown := set(names) - WORKS.keys() - VARIANTS.keys():
        raise SystemExit(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join([*WORKS, *VARIANTS])}")
    name = "speed" if gpu() is None else "speed_gpu"
    stored = RESULTS / f"{name}.json"
    before = json.loads(stored.read_text(encoding="utf-8"))["turns"] if stored.is_file() else {}
    rows, details = [], {}
    for work in WORKS:
        measured: list[dict[str, Any]] = []
        if work in works:
            measured = _measure(WORKS[work], variants, rounds=chosen.rounds, seconds=chosen.seconds)
        found = {one["variant"]: one for one in [*before.get(work, []), *measured]}  # others stay as they were
        details[work] = [found[variant] for variant in VARIANTS if variant in found]
        rows += [[WORKS[work].title, *_cells(one)] for one in details[work]]
    header = [
        "work", "variant", "tokens/s", "rows/s", f"times {variants[0]}, median", "quartiles", "peak MB",
        "page faults a step", "turns", "cores of others",
    ]  # fmt: skip
    unit = ", CPU seconds" if chosen.cpu_seconds else ""
    title = f"Training speed: MiniLM in bf16, variants taking turns{unit}"
    save(name, title, header, rows, script="speed", turns=details)
    bars = [
        (f"{work}: {one['variant']}", one["ratio"], tuple(one["quartiles"]))
        for work in details
        for one in details[work]
    ]
    draw(name, "tokens/s, times the first of each work", bars)


def _measure(work: Work, variants: list[str], *, rounds: int, seconds: float) -> list[dict[str, Any]]:
    data = shared_data(work.file[0]).joinpath(*work.file[1:])
    with tempfile.TemporaryDirectory() as scratch:
        workers = [_start(name, work, data, Path(scratch)) for name in variants]
        try:
            for number in range(rounds + 1):
                for worker in workers:
                    most = 1 if options().cpu_seconds else 3
                    worker.take_turn(seconds=seconds, is_first=number == 0, most=most)
                print(f"round {number} of {rounds}", flush=True)
            return [_summary(worker, workers[0]) for worker in workers]
        finally:
            for worker in workers:
                worker.end()


def _start(name: str, work: Work, data: Path, scratch: Path) -> Worker:
    worker = launch(
        name, VARIANTS[name], scratch, data=data, columns=work.columns, header=work.header, max_length=work.max_length,
        threads=threads(),
    )  # fmt: skip
    worker.wait()
    if name == "ours compiled":
        worker.steps = 150  # in its first turn all lengths come, and are compiled
    return worker


def _summary(worker: Worker, base: Worker) -> dict[str, Any]:
    clock = "cpu" if options().cpu_seconds else "seconds"
    speeds = [turn["tokens"] / turn[clock] for turn in worker.turns]
    ratios = [speed / (turn["tokens"] / turn[clock]) for speed, turn in zip(speeds, base.turns, strict=True)]
    return {
        "variant": worker.name,
        "tokens_per_second": statistics.median(speeds),
        "rows_per_second": sum(t["rows"] for t in worker.turns) / sum(t[clock] for t in worker.turns),
        "ratio": statistics.median(ratios),
        "quartiles": list(quartiles(ratios)),
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


if __name__ == "__main__":
    main()
