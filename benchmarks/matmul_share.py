"""How much of what this machine can multiply training reaches: MiniLM and bert-base, in bf16 and fp32, in one run.

python benchmarks/matmul_share.py [DATA] [--rounds 5] [--seconds 4] [--only bf16,fp32]

The peak is measured: in each round products of square matrices of several sizes, as many threads as training has. Then
each model, a process that is alive all the time, takes optimizer steps on 32 SST-2 sentences each. A share is what the
model has to compute (nlp_finetune/models/flops.py; padding doesn't count), by the seconds that its steps took, by the
peak of the same round: of its best product, and of the median one. bert-base is drawn from its configuration.
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
    "bert-base": {"model.checkpoint": "scratch:bert", "model.tokenizer": CHECKPOINT, "packing": "off"},
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
        peaks = found["peaks"]
        rows.append(
            [precision, "peak, best product of a round", spread([max(each.values()) for each in peaks]), "", "", ""]
        )
        for size in SIZES:
            rows.append([precision, f"{size} x {size}", spread([each[size] for each in peaks]), "", "", ""])
        for name, speeds in found["models"].items():
            best = [speed / max(each.values()) for speed, each in zip(speeds, peaks, strict=True)]
            middle = [speed / statistics.median(each.values()) for speed, each in zip(speeds, peaks, strict=True)]
            goal = GOALS[name] if precision == "bf16" else ""
            rows.append([precision, f"training {name}", spread(speeds), spread(best), spread(middle), goal])
    header = [
        "precision",
        "what",
        "GFLOP/s, median (quartiles)",
        "share of the best",
        "share of the median size",
        "goal",
    ]
    save("matmul_share", "What training reaches of the measured peak of matrix products", header, rows, found=details)


def measure(precision: str, data: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    """GFLOP/s of products by size, and of training by model, in each round."""
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


def products(precision: str) -> dict[int, float]:
    """GFLOP/s of products of two square matrices, by their size: the best of as many as fit into the time."""
    import torch

    torch.set_num_threads(threads())
    found = {}
    for size in SIZES:
        one, other = (
            torch.randn(size, size).to(getattr(torch, {"bf16": "bfloat16", "fp32": "float32"}[precision])) for _ in "12"
        )
        out = torch.mm(one, other)
        best, begin = float("inf"), time.perf_counter()
        while time.perf_counter() - begin < GEMM_SECONDS:
            start = time.perf_counter()
            torch.mm(one, other, out=out)
            best = min(best, time.perf_counter() - start)
        found[size] = 2 * size**3 / best / 1e9
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
