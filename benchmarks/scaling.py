"""Time and memory per row of a whole run, on 1,000, 10,000 and 100,000 rows: they are to stay the same.

python benchmarks/scaling.py [--only 1000,10000,100000]

The script writes the rows: sentences of up to 24 words drawn from 2,000, with two labels, nine in ten for training. A
BERT of one layer and 32 wide, with a tokenizer fitted on the rows, trains for one epoch: next to no computing, so that
what is measured is everything around it. Each size runs in a process of its own, in which the parts of a run are timed.
Memory is the peak of the process, less what it has taken before the first row is read.
"""

from __future__ import annotations

import csv
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import ROOT, options, parser, save

SIZES = (1_000, 10_000, 100_000)
WORDS = 2_000
PARTS = ("reading and tokenizing", "checks and simple rivals", "building", "training", "its evaluations", "the end")
"""building: the model, and trying out what makes it faster; the end: the saved weights measured, report, card."""
FLAT = 1.25
"""How much more a row of the largest size may take than one of the second to be called flat."""


def main() -> None:
    parser().add_argument("--run", nargs=2, metavar=("FILE", "FOLDER"), help="time one run; for this script itself")
    chosen = options()
    if chosen.run is not None:
        print(json.dumps(timed(*map(Path, chosen.run))))
        return
    sizes = [int(size) for size in chosen.only.split(",")] if chosen.only else [*SIZES]
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for size in sizes:
            file = Path(scratch) / f"{size}.csv"
            write(file, size)
            found[size] = in_a_process(file, Path(scratch) / str(size))
            print(f"{size:,} rows: {found[size]}", flush=True)
    header = [
        "rows",
        "s in all",
        "ms a row",
        *(f"ms a row: {part}" for part in PARTS),
        "peak MB",
        "above start, KB a row",
    ]
    save(
        "scaling", "A whole run by its rows: one layer, 32 wide, one epoch", header,
        [cells(size, one) for size, one in found.items()], found={str(size): one for size, one in found.items()},
        growth=growth(found),
    )  # fmt: skip
    for line in growth(found):
        print(line)


def growth(found: dict[int, dict[str, Any]]) -> list[str]:
    """What each further row takes, between neighbouring sizes: what is spent once does not hide what grows."""
    sizes = sorted(found)
    steps = list(itertools.pairwise(sizes))
    lines = []
    for name in ("seconds", *PARTS, "memory"):
        each = []
        for small, large in steps:
            one, other = _figures(found[small])[name], _figures(found[large])[name]
            each.append((other - one) / (large - small))
        unit = "KB" if name == "memory" else "ms"
        shown = ", ".join(
            f"{1000 * value:.3f} {unit} ({small:,} to {large:,})"
            for value, (small, large) in zip(each, steps, strict=True)
        )
        flat = len(each) < 2 or each[-1] <= FLAT * max(each[-2], 0.0) or each[-1] * 1000 < 0.01
        lines.append(f"{name}, each further row: {shown}{'' if flat else ': not flat'}")
    return lines


def _figures(one: dict[str, Any]) -> dict[str, float]:
    return {"seconds": one["seconds"], "memory": one["peak_mb"] * 1.024, **one["parts"]}


def cells(size: int, one: dict[str, Any]) -> list[Any]:
    each = [1000 * one["parts"][part] / size for part in PARTS]
    above = (one["peak_mb"] - one["start_mb"]) * 1024 / size
    return [
        f"{size:,}", f"{one['seconds']:.1f}", f"{1000 * one['seconds'] / size:.2f}", *(f"{ms:.3f}" for ms in each),
        f"{one['peak_mb']:.0f}", f"{above:.1f}",
    ]  # fmt: skip


def write(file: Path, count: int) -> None:
    """Rows that differ, with a label that their words tell."""
    draw = random.Random(count)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 8))) for _ in range(WORDS)]
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for number in range(count):
            label = number % 2
            part = words[: WORDS // 2] if label else words[WORDS // 2 :]
            writer.writerow([" ".join(draw.choices(part, k=4) + draw.choices(words, k=draw.randint(0, 20))), label])


def in_a_process(file: Path, folder: Path) -> dict[str, Any]:
    """Time one run in a process of its own."""
    command = [sys.executable, __file__, "--run", str(file), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{file.name}:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def timed(file: Path, folder: Path) -> dict[str, Any]:
    """Seconds of a run by its parts, with caches that are empty, and memory."""
    sys.path.insert(0, str(ROOT))
    import datasets

    import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers
    from nlp_finetune import check, runtime, train
    from nlp_finetune.engines import hf_trainer  # noqa: F401  imported before the clock starts
    from nlp_finetune.recipe import load
    from nlp_finetune.tasks import base

    runtime.set_up_log()
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    overrides = [
        "model.checkpoint=scratch:bert", "model.tokenizer=train",
        "model.config={hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64,"
        " vocab_size: 4000, max_position_embeddings: 64}",
        f"data.source={file}", "task.max_length=48", "train.epochs=1", "train.batch_size=64",
        "optim.learning_rate=1e-3", "train.log_every=100", f"output_dir={folder / 'run'}",
    ]  # fmt: skip
    recipe = load("text_cls", overrides=overrides, task_options=base.options_of, task_names=base.names()).recipe
    spent = dict.fromkeys(PARTS, 0.0)

    def clocked(part: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return action(*arguments, **named)
            finally:
                spent[part] += time.perf_counter() - begin

        return measured

    names = dict(zip(PARTS, ("prepare", "", "_make", "fit", "", "finish"), strict=True))
    for part, name in names.items():
        if name:
            setattr(train, name, clocked(part, getattr(train, name)))
    check.data_report = clocked("checks and simple rivals", check.data_report)  # type: ignore[assignment]
    start = _peak_mb()
    begin = time.perf_counter()
    figures = train.train(recipe).metrics["train"]
    seconds = time.perf_counter() - begin
    spent["its evaluations"] = figures["time_split"]["evaluation"]
    spent["training"] -= spent["its evaluations"]
    return {"seconds": seconds, "parts": spent, "start_mb": start, "peak_mb": _peak_mb(), "train": figures}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
