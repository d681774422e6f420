"""How much of what this machine can multiply training reaches: MiniLM and bert-base, in bf16 and fp32, in one run.

python benchmarks/matmul_share.py [DATA] [--rounds 5] [--seconds 4] [--only bf16,fp32]

The peak is measured: in each round products of square matrices of several sizes, as many threads as training has. Then
each model, a process that is alive all the time, takes optimizer steps on 32 SST-2 sentences each. A share is what the
model has to compute (nlp_finetune/models/flops.py; padding doesn't count), by the seconds that its steps took, by the
peak of the same round: the fastest product, and the fastest of the sizes' medians ("usual"). bert-base is drawn from
its configuration.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common import options, parser, save, shared_data
from live import CHECKPOINT, Worker, launch, spread, threads

SIZES = (512, 1024, 2048, 4096)
GEMM_SECONDS = 0.5
"""For products of one size in one round."""
MODELS = {
    "MiniLM": {},
    "bert-base": {"model.checkpoint": "scratch:bert", "model.tokenizer": CHECKPOINT},
}  # fmt: skip
GOALS = {"MiniLM": "50 %", "bert-base": "55 %"}


def main() -> None:
    parser().set_defaults(rounds=5)
    chosen = options()
    data = shared_data("sst2_sentences") / "train.tsv"
    precisions = [name for name in ("bf16", "fp32") if name in chosen.only.split(",")] or ["bf16", "fp32"]
    rows, details = [], {}
    for precision in precisions:
        found = measure(precision, data, rounds=chosen.rounds, seconds=chosen.seconds)
        details[precision] = found
        best, usual = ([max(each[kind].values()) for each in found["peaks"]] for kind in ("best", "usual"))
        for size in SIZES:
            shown = [spread([each[kind][str(size)] for each in found["peaks"]]) for kind in ("best", "usual")]
            rows.append([precision, f"product of {size} x {size}, best and usual", ", ".join(shown), "", "", ""])
        for name, speeds in found["models"].items():
            shares = [
                spread([speed / peak for speed, peak in zip(speeds, peaks, strict=True)]) for peaks in (best, usual)
            ]
            goal = GOALS[name] if precision == "bf16" else ""
            rows.append([precision, f"training {name}", spread(speeds), *shares, goal])
    header = [
        "precision", "what", "GFLOP/s, median (quartiles)", "share of the best product", "share of the usual product",
        "goal",
    ]  # fmt: skip
    save("matmul_share", "What training reaches of the measured peak of matrix products", header, rows, found=details)


def measure(precision: str, data: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    """GFLOP/s of products (`products`), and of training by model, in each round."""
    peaks = []
    with tempfile.TemporaryDirectory() as scratch:
        workers = [
            launch(
                name, {"precision": precision, **settings}, Path(scratch), data=data, columns=("text", "label"),
                header=False, max_length=128, threads=threads(), counts_work=True,
            )
            for name, settings in MODELS.items()
        ]  # fmt: skip
        try:
            for worker in workers:
                worker.wait()
                worker.take_turn(seconds=seconds, is_first=True)
            for number in range(rounds):
                peaks.append(products(precision))
                for worker in workers:
                    worker.take_turn(seconds=seconds)
                print(f"{precision}: round {number + 1} of {rounds}: {peaks[-1]}", flush=True)
        finally:
            for worker in workers:
                worker.end()
    return {"peaks": peaks, "models": {worker.name: gflops(worker) for worker in workers}}


def products(precision: str) -> dict[str, dict[str, float]]:
    """GFLOP/s of products of square matrices by size: the `best` of those that fit into the time, and the `usual`."""
    import torch

    torch.set_num_threads(threads())
    kind = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    found: dict[str, dict[str, float]] = {"best": {}, "usual": {}}
    for size in SIZES:
        one, other = (torch.randn(size, size).to(kind) for _ in range(2))
        out = torch.mm(one, other)
        seconds, begin = [], time.perf_counter()
        while time.perf_counter() - begin < GEMM_SECONDS:
            start = time.perf_counter()
            torch.mm(one, other, out=out)
            seconds.append(time.perf_counter() - start)
        for name, value in (("best", min(seconds)), ("usual", statistics.median(seconds))):
            found[name][str(size)] = 2 * size**3 / value / 1e9
    return found


def gflops(worker: Worker) -> list[float]:
    """GFLOP/s of each turn: what its rows take by their number, their lengths and the squares of these."""
    constant, linear, square = worker.about["work"]
    return [
        (constant * turn["rows"] + linear * turn["tokens"] + square * turn["squares"]) / turn["seconds"] / 1e9
        for turn in worker.turns
    ]


if __name__ == "__main__":
    main()
