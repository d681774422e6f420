"""Every benchmark is a command that says what it does, before it does anything."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
PARTS = {"common.py", "speed_workers.py"}
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name not in PARTS)


def test_all_are_found() -> None:
    assert len(SCRIPTS) > 25


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_each_says_what_it_does_and_starts_nothing(name: str) -> None:
    done = subprocess.run(
        [sys.executable, name, "--help"], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith(f"usage: {name}")
