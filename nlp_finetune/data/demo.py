"""Small data sets that ship with the package, `demo:NAME`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from nlp_finetune.data import digits
from nlp_finetune.errors import InputError

FOLDER = Path(__file__).parent / "embedded"
PREFIX = "demo:"
COMPUTED: dict[str, Callable[[], dict[str, pa.Table]]] = {digits.NAME: digits.tables}
"""Data sets made from what a dependency carries: name to the tables of their splits."""


def names() -> list[str]:
    """Names of the demo data sets."""
    return sorted([*COMPUTED, *_embedded()])


def _embedded() -> list[str]:
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir() and any(path.glob("train.*")))


def folder(source: str) -> str:
    """Folder of `demo:NAME`. Raises `InputError` listing the names if there is none of that name."""
    name = source.removeprefix(PREFIX)
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {PREFIX}{close[0]}?" if close else ""
        raise InputError(f"There are no demo data called '{name}'.{hint} There are: {', '.join(known)}.")
    return str(FOLDER / name)
