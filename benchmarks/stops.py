"""Seconds from a signal to the exit with code 75, by what the run is doing, and what each run says.

python benchmarks/stops.py [--repeats 3]

The evaluation would take minutes (20,000 batches of one row), so a stop that waited for it would show.
"""

from __future__ import annotations

import argparse
import csv
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import ROOT, save

sys.path.insert(0, str(ROOT))
Moment = Callable[[Path, str], bool]
ROWS = 20_000


def main() -> None:
    from tests import tiny_runs as runs

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--note", default="", help="a remark on the machine, for the results")
    options = parser.parse_args()
    moments: dict[str, Moment] = {
        "preparing data": lambda run, log: "strategy:" in log,
        "training steps": lambda run, log: len(runs.history(run)) >= 5,
        "a long evaluation": lambda run, log: any(entry["step"] == 20 for entry in runs.history(run)),
    }
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        data = write_data(Path(scratch))
        for moment, reached in moments.items():
            for engine, processes in (("trainer", 1), ("accelerate", 2)):
                seconds = []
                for repeat in range(options.repeats):
                    folder = Path(scratch) / f"{moment}-{engine}-{processes}-{repeat}"
                    folder.mkdir()
                    seconds.append(stop(folder, (*data, f"train.engine={engine}"), processes, reached))
                rows.append([moment, engine, processes, *(f"{f(seconds):.2f}" for f in (min, max))])
                print(rows[-1], flush=True)
    header = ["during", "engine", "processes", "shortest (s)", "longest (s)"]
    title = f"Seconds from SIGTERM to exit code 75, {options.repeats} stops each"
    save("stops", title, header, rows, note=options.note)


def write_data(folder: Path) -> tuple[str, ...]:
    """Arguments of a run with a few training rows and many validation rows."""
    from tests.tiny import TINY

    for name, rows in (("train", 400), ("validation", ROWS)):
        with open(folder / f"{name}.csv", "w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["text", "label"])
            writer.writerows([f"{name} row {i} is {'good' if i % 2 else 'bad'}", i % 2] for i in range(rows))
    files = [f"data.{name}={folder / name}.csv" for name in ("train", "validation")]
    sizes = ["train.max_steps=40", "train.eval_every=20", "train.eval_batch_size=1", "train.log_every=1"]
    return (*(a for a in TINY if not a.startswith("data.")), *files, *sizes)


def stop(folder: Path, arguments: tuple[str, ...], processes: int, reached: Moment) -> float:
    """Seconds from the signal, to every process, until the last one has exited with 75."""
    from tests import tiny_runs as runs

    started = runs.start(folder, *arguments, processes=processes)
    started[0].until(lambda: reached(folder / "run", started[0].stderr))
    asked = time.monotonic()
    for one in started:
        one.send(signal.SIGTERM)
    done = runs.wait(started)
    seconds = time.monotonic() - asked
    if [one.code for one in done] != [75] * processes:
        raise SystemExit(f"exit codes {[one.code for one in done]}: {done[0].stderr[-2000:]}")
    return seconds


if __name__ == "__main__":
    main()
