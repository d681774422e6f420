"""Has anything become slower or larger? The main ratios in short form, beside those that were stored.

python benchmarks/quick.py [--store]

Under three minutes on two cores, and no data but what ships with the package. Few turns on whatever machine this is:
a change of a tenth means nothing, one of a third is worth a look with the benchmark that measures it properly.
`--store` writes results/quick.json, which later runs are compared with. A ratio never makes it fail.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from common import RESULTS, ROOT, machine, options, parser

sys.path.insert(0, str(ROOT))
STORED = RESULTS / "quick.json"
PREDICTED_ROWS = 200


def main() -> None:
    parser().add_argument(
        "--store", action="store_true", help=f"write {STORED.name}, which later runs are compared with"
    )
    parser().set_defaults(rounds=4, seconds=2.0)
    chosen = options()
    stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.is_file() else {}
    now: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        data = reviews(Path(scratch) / "reviews.tsv")
        for measure in (training, prefix_cache, prediction, vocabulary):
            begin = time.monotonic()
            try:
                now |= measure(data, Path(scratch))
            except (Exception, SystemExit) as error:  # the others are worth having all the same
                print(f"{measure.__name__} could not be measured: {str(error).strip()[-500:]}", flush=True)
            print(f"{measure.__name__}: {time.monotonic() - begin:.0f} s", flush=True)
    show(now, stored)
    if chosen.store:
        content = {"date": date.today().isoformat(), "machine": machine(), "note": chosen.note, "ratios": now}
        STORED.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def show(now: dict[str, float], stored: dict[str, object]) -> None:
    """A table of the ratios now and then."""
    before = dict(stored.get("ratios", {}))  # type: ignore[call-overload]
    then = f"{stored['date']} on {stored['machine']}" if stored else "nothing is stored yet: --store"
    print(f"\nnow: {date.today().isoformat()} on {machine()}\nstored: {then}\n")
    print("| ratio | now | stored | change |\n| --- | --- | --- | --- |")
    for name in [*now, *(name for name in before if name not in now)]:
        one, other = now.get(name), before.get(name)
        change = f"{one / other - 1:+.0%}" if one is not None and other else ""
        print(
            f"| {name} | {'' if one is None else f'{one:.2f}'} | {'' if other is None else f'{other:.2f}'} | {change} |"
        )


def reviews(file: Path) -> Path:
    """The training reviews of the demo as tab-separated text and label."""
    from nlp_finetune.data import demo

    with (Path(demo.folder("demo:reviews")) / "train.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    lines = [f"{' '.join(row['text'].split())}\t{row['label']}\n" for row in rows]
    file.write_text("".join(lines), encoding="utf-8")
    return file


def training(data: Path, scratch: Path) -> dict[str, float]:
    """`speed.py` in short form: bf16, batches of 32."""
    from live import launch, ratios, threads

    workers = [
        launch(name, settings, scratch, data=data, columns=("text", "label"), header=False, max_length=128,
               threads=threads())
        for name, settings in (("rival", "tuned"), ("ours", {}))
    ]  # fmt: skip
    try:
        for worker in workers:
            worker.wait()
        for number in range(options().rounds + 1):
            for worker in workers:
                worker.take_turn(seconds=options().seconds, is_first=number == 0, most=1)
    finally:
        for worker in workers:
            worker.end()
    rival, ours = workers
    peaks = [max(turn["peak_mb"] for turn in worker.turns) for worker in workers]
    return {
        "training tokens/s, times a tuned Trainer": statistics.median(ratios(ours, rival)),
        "peak memory of training, share of the Trainer's": peaks[1] / peaks[0],
    }


def prefix_cache(data: Path, scratch: Path) -> dict[str, float]:
    """`prefix_speed.py` in short form; leaves a finished run for `prediction`."""
    from prefix_speed import Work, measure, ratios

    work = Work("3 of 6 layers frozen, 3 epochs", 192, 3, "freeze.layers=3", 0.0)
    counted, filled = ratios(measure(work, data, data, scratch, rounds=1))
    return {
        "3 of 6 layers frozen, 3 epochs, times without the cache": counted[0],
        "the same once the cache is filled": filled[0],
    }


def prediction(data: Path, scratch: Path) -> dict[str, float]:
    """`inference.py` in short form."""
    from inference import ours, pipeline

    run = next(path.parent for path in scratch.rglob("run/metrics.json"))
    lines = [line.split("\t")[0] for line in data.read_text(encoding="utf-8").splitlines()]
    texts = (lines * (PREDICTED_ROWS // len(lines) + 1))[:PREDICTED_ROWS]
    own = ours(run)  # first: it makes transformers fit for this machine
    variants: dict[str, Callable[..., list[str]]] = {
        "pipeline": pipeline(run), "fp32": own("fp32"), "bf16": own("bf16"),
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(4):
        for name, answer in variants.items():
            begin = time.perf_counter()
            answer(texts if number else texts[:32], [])
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - begin)

    def faster(name: str) -> float:
        return statistics.median(one / own for one, own in zip(seconds["pipeline"], seconds[name], strict=True))

    return {
        "prediction rows/s, times transformers' pipeline": faster("fp32"),
        "the same in bf16": faster("bf16"),
    }


def vocabulary(data: Path, scratch: Path) -> dict[str, float]:
    """`vocabulary_memory.py`, which is as short."""
    from vocabulary_memory import measure

    whole, compact = (sum(measure(compacted=compacted)) for compacted in (False, True))
    return {"gradients and optimizer with XLM-R's vocabulary, share of the full table's": compact / whole}


if __name__ == "__main__":
    main()
