"""Every benchmark is a command that says what it does, before it does anything."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
PARTS = {"common.py", "image_workers.py", "live.py", "speed_workers.py"}
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


def part(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(name)


@pytest.mark.parametrize("power", [1, 2])
def test_what_takes_more_for_each_further_row_is_called_so(power: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = part("scaling", monkeypatch)
    found = {
        size: {"seconds": 9 + (size / 1000) ** power, "peak_mb": size / 100, "parts": dict.fromkeys(scaling.PARTS, 1.0)}
        for size in scaling.SIZES
    }
    lines = {line.partition(",")[0]: line.endswith("not flat") for line in scaling.growth(found)}
    assert lines.pop("seconds") == (power == 2)
    assert not any(lines.values())


def test_ratios_stand_beside_the_stored_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = part("quick", monkeypatch)
    quick.show(
        {"speed": 1.5, "new": 2.0}, {"date": "2026-01-01", "machine": "one", "ratios": {"speed": 2.0, "gone": 3.0}}
    )
    shown = capsys.readouterr().out
    assert "| speed | 1.50 | 2.00 | -25% |" in shown
    assert "| new | 2.00 |  |  |" in shown
    assert "| gone |  | 3.00 |  |" in shown
    quick.show({"speed": 1.5}, {})
    assert "nothing is stored yet" in capsys.readouterr().out


def test_ratios_are_those_inside_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    live = part("live", monkeypatch)
    turns = [[{"tokens": 10.0 * n, "seconds": 2.0}, {"tokens": 20.0 * n, "seconds": 4.0}] for n in (1, 2)]
    one, other = (live.Worker(str(n), [], turns=turns[n]) for n in range(2))
    assert live.speeds(one) == [5.0, 5.0]
    assert live.ratios(other, one) == [2.0, 2.0]
    assert live.spread([1.0, 2.0, 3.0]) == "2.00 (1.00 to 3.00)"
