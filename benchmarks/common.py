"""What the benchmark scripts share: running a recipe, and writing down what was measured where."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


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
    return f"{os.cpu_count()} cores {name}, Python {platform.python_version()}, torch {_version('torch')}"


def _version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)


def save(name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], **details: Any) -> None:
    """Write results/NAME.json and results/NAME.md, and print the table."""
    RESULTS.mkdir(exist_ok=True)
    stamp = {"date": date.today().isoformat(), "machine": machine()}
    content = {**stamp, "header": list(header), "rows": [list(map(str, row)) for row in rows], **details}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    lines = [f"# {title}", "", f"{stamp['date']}, {stamp['machine']}. Made by `python benchmarks/{name}.py`.", ""]
    lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    text = "\n".join(lines) + "\n"
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def shared_data(name: str) -> Path:
    """A real data set beside the checkout, which is not redistributed; stops where it is not there."""
    folder = ROOT.parent / "shared" / "data" / name
    if not folder.is_dir():
        raise SystemExit(f"skipped: the data set {name} is not at {folder}")
    return folder
