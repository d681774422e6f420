"""What the benchmark scripts share: running a recipe, and writing down what was measured where."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


@lru_cache
def parser() -> argparse.ArgumentParser:
    """What every benchmark takes on its command line; a script may change it before it asks for `options`."""
    script = sys.modules["__main__"].__doc__ if RESULTS.parent == Path(sys.argv[0]).resolve().parent else None
    parser = argparse.ArgumentParser(description=script, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = ROOT.parent / "shared" / "data"
    parser.add_argument(
        "data", nargs="?", type=Path, default=beside, help=f"folder of the data sets (default: {beside})"
    )
    parser.add_argument("--note", default="", help="a remark on the machine, for the results")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each variant, where variants take turns")
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long one turn lasts, likewise")
    parser.add_argument("--only", default="", help="names of works and variants, with commas; all by default")
    parser.add_argument(
        "--cpu-seconds", action="store_true", help="speed.py: count CPU seconds, which other programs disturb less"
    )
    return parser


@lru_cache
def options() -> argparse.Namespace:
    """What was given on the command line."""
    return parser().parse_args()


def train(*arguments: str, folder: Path | None = None) -> dict[str, Any]:
    """Run `run.py train ARGUMENTS` in a process of its own and give its metrics.json."""
    with tempfile.TemporaryDirectory() as scratch:
        output = folder or Path(scratch) / "run"
        command = [sys.executable, str(ROOT / "run.py"), *arguments, f"output_dir={output}"]
        print("+", " ".join(command[1:]), flush=True)
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"exit code {done.returncode}:\n{done.stderr[-3000:]}")
        metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text())
        return metrics


def machine() -> str:
    """One line that says what a figure was measured on."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            name = next(line.split(":")[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    name = f"{gpu()} with {name}" if gpu() else name
    return f"{os.cpu_count()} cores {name}, Python {platform.python_version()}, torch {_version('torch')}"


@lru_cache
def gpu() -> str | None:
    """Name of the first GPU, without loading torch; None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return next(iter(found.stdout.splitlines()), None) if found.returncode == 0 else None


def _version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)


def save(
    name: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    note: str | None = None,
    script: str | None = None,
    **details: Any,
) -> None:
    """Write results/NAME.json and results/NAME.md, and print the table.

    `note` is a remark on the machine; None takes the one of the command line. `script` is what made them, if another.
    """
    RESULTS.mkdir(exist_ok=True)
    stamp = {"date": date.today().isoformat(), "machine": machine(), "note": options().note if note is None else note}
    content = {**stamp, "header": list(header), "rows": [list(map(str, row)) for row in rows], **details}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    made = f"{stamp['date']}, {stamp['machine']}. Made by `python benchmarks/{script or name}.py`."
    lines = [f"# {title}", "", f"{made} {stamp['note']}".strip(), ""]
    lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    text = "\n".join(lines) + "\n"
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def shared_data(name: str) -> Path:
    """A real data set, which is not redistributed; stops, and says so, where it is not there."""
    folder: Path = options().data.resolve() / name
    if not folder.is_dir():
        raise SystemExit(f"skipped: the data set {name} is not at {folder}; give the folder of the data sets")
    return folder


def with_interval(scores: dict[str, Any], name: str) -> str:
    """A score and its 95 % interval where it has one: `0.881 (0.860 to 0.903)`."""
    interval = scores.get(f"{name}_ci95")
    return f"{scores[name]:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def costs(metrics: dict[str, Any]) -> list[str]:
    """Seconds of training, rows a second and peak memory in MB, as cells of a table (`COSTS` heads them)."""
    figures = metrics["train"]
    return [f"{figures['seconds']:.0f}", f"{figures['samples_per_second']:.1f}", f"{figures['peak_memory_mb']:.0f}"]


COSTS = ["training s", "rows/s", "peak MB"]
