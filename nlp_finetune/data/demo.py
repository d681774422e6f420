"""Small data sets that ship with the package, `demo:NAME`."""

from __future__ import annotations

import difflib
from pathlib import Path

from nlp_finetune.errors import InputError

FOLDER = Path(__file__).parent / "embedded"
PREFIX = "demo:"


def names() -> list[str]:
    """Names of the demo data sets."""
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
