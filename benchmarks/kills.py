"""Kill runs with SIGKILL at random moments; are the finished weights those of the run that never was?

python benchmarks/kills.py [--kills 50] [--seed 1] [--minutes 30] [--only RUN ...]

Every run trains a small BERT from nothing with dropout, accumulation over micro batches and buckets by
length; with LoRA and its dropout, with layers that thaw one after another, with a moving average of its
weights; on texts that are changed or words that are masked anew in each epoch; or a small ResNet on
images that are cropped anew in each. Each is killed again and again, at moments drawn over its whole
length, evaluations, saving and final scores included, until it has had its share of kills; then it is let
through, and its weights are compared bit for bit.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import ROOT, save

sys.path.insert(0, str(ROOT))
CELLS = (
    ("sentences", "trainer", 1),
    ("masked_lm", "accelerate", 2),
    ("lora", "accelerate", 1),
    ("sentences", "accelerate", 2),
    ("lora", "trainer", 2),
    ("masked_lm", "trainer", 1),
    ("gradual", "trainer", 2),
    ("images", "accelerate", 1),
    ("averaged", "accelerate", 2),
    ("augmented", "trainer", 1),
)
"""Every kind of run at least once; both engines, on one process and on two."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=30, help="no new run is begun after so long")
    parser.add_argument("--only", nargs="*", metavar="RUN", help="kinds of runs to kill, for a table of their own")
    parser.add_argument("--note", default="", help="a remark on the machine, for the results")
    options = parser.parse_args()
    chance, end = random.Random(options.seed), time.monotonic() + 60 * options.minutes
    rows: list[list[str | int]] = []
    moments: Counter[str] = Counter()
    tried = survived = 0
    cells = [cell for cell in CELLS if not options.only or cell[0] in options.only]
    for number, (workload, engine, processes) in enumerate(cells):
        if time.monotonic() > end:
            print(f"out of time before {workload}, {engine}, {processes}")
            break
        share = (options.kills - tried) // (len(cells) - number)
        with tempfile.TemporaryDirectory() as scratch:
            found, equal = kill_and_finish(Path(scratch), workload, engine, processes, share, chance)
        kills = sum(found.values())
        tried += kills
        survived += kills if equal else 0
        moments += found
        rows.append([workload, engine, processes, kills, "yes" if equal else "NO"])
        report(rows, tried, survived, moments, options)
    if survived != tried:
        raise SystemExit(1)


def report(
    rows: list[list[str | int]], tried: int, survived: int, moments: Counter[str], options: argparse.Namespace
) -> None:
    """Write down what is known so far."""
    header = ["run", "engine", "processes", "kills", "weights bit-identical"]
    title = f"Random kills: {survived} of {tried} survived"
    during = [[f"of these during {moment}", "", "", count, ""] for moment, count in moments.most_common()]
    total = ["all", "", "", tried, f"{survived} of {tried} kills survived"]
    save(
        "_".join(["kills", *(options.only or [])]),
        title,
        header,
        [*rows, total, *during],
        seed=options.seed,
        note=options.note,
    )


def kill_and_finish(
    scratch: Path, workload: str, engine: str, processes: int, kills: int, chance: random.Random
) -> tuple[Counter[str], bool]:
    """Kill a run so often; gives how often it was killed during what, and whether it ended as it should."""
    from tests import tiny_runs as runs

    kinds = {
        "sentences": runs.SENTENCES,
        "lora": runs.LORA,
        "masked_lm": runs.MASKED,
        "gradual": runs.GRADUAL,
        "images": runs.IMAGES,
        "averaged": runs.AVERAGED,
        "augmented": runs.AUGMENTED,
    }
    arguments = (*kinds[workload], f"train.engine={engine}")
    whole, killed = scratch / "whole", scratch / "killed"
    whole.mkdir()
    killed.mkdir()
    started = runs.start(whole, *arguments, processes=processes)
    started[0].until(lambda: begins_to_train(whole / "run", 0))
    begun = time.monotonic()
    assert all(done.code == 0 for done in runs.wait(started))
    length_s = time.monotonic() - begun
    found: Counter[str] = Counter()
    equal = True
    while sum(found.values()) < kills:
        before, last = runs.history(killed / "run"), beginning(killed / "run")
        started = runs.start(killed, *arguments, processes=processes)
        started[0].until(lambda: begins_to_train(killed / "run", last) or is_finished(killed / "run"))  # noqa: B023
        left_s = length_s * (1 - len(before) / (len(runs.history(whole / "run")) + 4))
        time.sleep(chance.uniform(0, left_s))
        moment = what_is_done(killed / "run")
        for one in started:
            one.process.kill()
        runs.wait(started)
        if is_finished(killed / "run"):  # it was quicker than the kill: it is compared, and another one begins
            equal &= runs.same(runs.weights(killed / "run"), runs.weights(whole / "run"))
            shutil.rmtree(killed / "run")
            continue
        found[moment] += 1
    runs.finish(killed, *arguments, processes=processes)
    return found, equal and runs.same(runs.weights(killed / "run"), runs.weights(whole / "run"))


def begins_to_train(run: Path, last: int) -> bool:
    """Whether preparation is over in a later start than the `last`, which was killed in the state `running`."""
    from tests import tiny_runs as runs

    return beginning(run) > last and runs.is_training(run) and (run / "history.jsonl").is_file()


def is_finished(run: Path) -> bool:
    """Whether a run is over; it may have been killed between that and its end as a process."""
    return '"finished"' in (run / "status.json").read_text() if (run / "status.json").is_file() else False


def beginning(run: Path) -> int:
    """When a run last said that it trains, in nanoseconds."""
    return (run / "status.json").stat().st_mtime_ns if (run / "status.json").is_file() else 0


def what_is_done(run: Path) -> str:
    """What a run is doing, as far as its folder tells."""
    from tests.tiny_runs import history

    if (run / "model").exists() or (run / ".model.partial").exists():
        return "final save and scores"
    if list((run / "checkpoints").glob(".*.partial")):
        return "writing a checkpoint or best weights"
    lines = history(run)
    if lines and lines[-1]["step"] % 10 == 0 and "loss" in lines[-1]:
        return "evaluation"
    return "training steps"


if __name__ == "__main__":
    main()
