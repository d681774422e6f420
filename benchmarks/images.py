"""Training on JPEG files against transformers.Trainer: ResNet-18 at 224 pixels, live processes that take turns.

python benchmarks/images.py [--rounds 15] [--seconds 20] [--only NAME,NAME] [--cpu-seconds]

As in `speed.py`, every variant is a process that trains while the others wait, and a ratio is the median of ratios
inside one round. A turn ends when the loading processes have refilled what it took, so that each pays for as many
images as it used. `waiting` is the share of a turn in which the model waited for images, `peak MB` that of the process
which trains.

The rival is transformers' Trainer with transformers' ResNet in fp32, torchvision's transforms (random crop, mirror
image, `ToTensor`, `Normalize`), loading processes, and freed memory kept. The images are cut from scikit-learn's two
photographs. Run it alone on the machine; where that can't be, `--cpu-seconds` counts the processes' own.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import options, save
from live import Worker, draw, quartiles, spread, start, threads

IMAGES, CLASSES = 384, 8
_WIDTH, _HEIGHT = 400, 300
BARE = {"channels_last": "off", "workers": "0"}
VARIANTS: dict[str, dict[str, Any]] = {
    "rival": {"rival": True, "workers": 2},
    "rival with one loading process": {"rival": True, "workers": 1},
    "rival in bf16": {"rival": True, "workers": 2, "bf16": True},
    "ours": {"train": {}},
    "ours in bf16": {"train": {"precision": "bf16"}},
    "bare": {"train": BARE},
    "bare in bf16": {"train": {**BARE, "precision": "bf16"}},
}
"""Settings of `train` by variant, or of the rival, which comes first: the others are compared with it.

Bare means without loading processes and in the usual layout of convolutions."""


def main() -> None:
    chosen = options()
    names = [name for name in VARIANTS if name in chosen.only.split(",")] if chosen.only else [*VARIANTS]
    if unknown := {name for name in chosen.only.split(",") if name} - VARIANTS.keys():
        raise SystemExit(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
    with tempfile.TemporaryDirectory() as scratch:
        write_images(Path(scratch, "photos"))
        workers = [_start(name, Path(scratch)) for name in names]
        try:
            for number in range(chosen.rounds + 1):
                for worker in workers:
                    most = 1 if chosen.cpu_seconds else 3
                    worker.take_turn(seconds=chosen.seconds, is_first=number == 0, most=most)
                print(f"round {number} of {chosen.rounds}", flush=True)
        finally:
            for worker in workers:
                worker.end()
    found = [_summary(worker, workers[0]) for worker in workers]
    header = [
        "variant",
        "images/s",
        f"times {names[0]}, median (quartiles)",
        "waiting",
        "peak MB",
        "turns",
        "cores of others",
    ]
    unit = ", CPU seconds" if chosen.cpu_seconds else ""
    title = f"Training on JPEG files: ResNet-18 at 224 pixels, variants taking turns{unit}"
    save("images", title, header, [_cells(one) for one in found], turns=found)
    bars = [(one["variant"], statistics.median(one["ratios"]), quartiles(one["ratios"])) for one in found]
    draw("images", "images/s, times the first", bars)


def write_images(folder: Path) -> None:
    """Views of scikit-learn's photographs as JPEG files of 400 x 300 pixels, in class folders."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(IMAGES):
        photograph = photographs[number % len(photographs)]
        width = int(random.integers(_WIDTH // 2, _WIDTH * 4 // 3))
        height = width * _HEIGHT // _WIDTH
        left, top = int(random.integers(photograph.width - width)), int(random.integers(photograph.height - height))
        view = photograph.crop((left, top, left + width, top + height)).resize(
            (_WIDTH, _HEIGHT), Image.Resampling.BICUBIC
        )
        place = folder / f"class{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        view.save(place / f"{number}.jpg", quality=90)


def _start(name: str, scratch: Path) -> Worker:
    about = {**VARIANTS[name], "data": str(scratch / "photos"), "folder": str(scratch / name.replace(" ", "_"))}
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads())}
    worker = Worker(name, [start("image_workers.py", about, scratch / f"{name}.log", environment)])
    worker.wait()
    return worker


def _summary(worker: Worker, base: Worker) -> dict[str, Any]:
    clock = "cpu" if options().cpu_seconds else "seconds"
    own, other = ([turn["rows"] / turn[clock] for turn in one.turns] for one in (worker, base))
    return {
        "variant": worker.name,
        "images_per_second": statistics.median(own),
        "ratios": [one / two for one, two in zip(own, other, strict=True)],
        "waiting": sum(turn["waited"] for turn in worker.turns) / sum(turn["seconds"] for turn in worker.turns),
        "peak_mb": max(turn["peak_mb"] for turn in worker.turns),
        "others": statistics.median(turn["others"] for turn in worker.turns),
        "turns": worker.turns,
    }


def _cells(one: dict[str, Any]) -> list[str]:
    return [
        one["variant"], f"{one['images_per_second']:.1f}", spread(one["ratios"]), f"{one['waiting']:.1%}",
        f"{one['peak_mb']:.0f}", str(len(one["turns"])), f"{one['others']:.2f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
