"""Folders that can be trusted: a manifest says what is in them, and what they belong to.

`manifest.json` is written last. A folder that agrees with its manifest is whole, whatever happened
to the process that wrote it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlp_finetune.runs.folder import read_json, write_json

MANIFEST = "manifest.json"
_OTHER = {"data": "other data"}


def seal(folder: Path, *, about: Mapping[str, Any] | None = None, known: Mapping[str, Any] | None = None) -> None:
    """Write down size and hash of every file, and what the folder belongs to.

    `known` has the entries of files whose hash need not be computed again.
    """
    files = {}
    for file in sorted(f for f in folder.rglob("*") if f.is_file() and f.name != MANIFEST):
        name = str(file.relative_to(folder))
        files[name] = (known or {}).get(name) or {"size": file.stat().st_size, "sha256": _sha256(file)}
    write_json(folder / MANIFEST, {"about": dict(about or {}), "files": files})


def contents(folder: Path) -> dict[str, Any]:
    """The manifest: `files` with size and hash, and what the folder is `about`."""
    return read_json(folder / MANIFEST)


def fault(folder: Path, *, about: Mapping[str, Any] | None = None) -> str | None:
    """Why a folder cannot be trusted, or None.

    Every file has its size and hash, and each thing that `about` names is the one that was sealed.
    """
    if not folder.is_dir():
        return "it is missing"
    try:
        manifest = contents(folder)
    except (ValueError, OSError):
        return "its manifest cannot be read"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict) or not manifest["files"]:
        return "it has no manifest"
    for name, expected in (about or {}).items():
        if manifest.get("about", {}).get(name) != expected:
            return f"it belongs to {_OTHER.get(name, f'another {name}')}"
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["size"]:
            return f"{name} has {file.stat().st_size} bytes, not {expected['size']}"
        if _sha256(file) != expected["sha256"]:
            return f"{name} is damaged (wrong sha256)"
    return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
