"""The weights under an adapter, as a digest: an adapter is worth nothing on other ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_FILE = "weights.json"
_PATTERNS = ("*.safetensors", "*.bin", "*.pth")
"""Names of weights, the first that is found: where there are safetensors, nothing else is read."""


def digest(place: Path) -> str | None:
    """SHA-256 over the weights in a folder, or over one file of them; None where there are none."""
    files = [place] if place.is_file() else next((found for p in _PATTERNS if (found := sorted(place.glob(p)))), [])
    whole = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            whole.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest() if files else None


def write(folder: Path, found: str | None) -> None:
    """Note a digest in the folder of a base's configuration."""
    if found is not None:
        (folder / _FILE).write_text(json.dumps({"sha256": found}), encoding="utf-8")


def read(folder: Path) -> str | None:
    """The digest that `write` noted, if it did."""
    file = folder / _FILE
    return json.loads(file.read_text(encoding="utf-8")).get("sha256") if file.is_file() else None
