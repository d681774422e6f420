"""Arrays of many rows on disk, memory-mapped: what a frozen prefix makes of each row.

    about.json       what the arrays are, their type and shape
    places.npy       [rows, 3]: file, first item and number of items of each row
    items-N.bin      the items (tokens, or whole rows) that process N wrote, one behind the other

A folder is written under another name and renamed when it is whole, so that what a killed process left is never
read. Folders that were not used for longest make room for new ones.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

ABOUT = "about.json"
_STALE_S = 24 * 3600.0
"""Half-written folders older than this were left by processes that were killed."""


class Writer:
    """Writes the items of one process's rows, in whatever order they come."""

    def __init__(self, folder: Path, *, process: int) -> None:
        self.folder = folder
        self.process = process
        self.places: dict[int, tuple[int, int, int]] = {}
        self.kind: tuple[str, tuple[int, ...]] | None = None
        self._stream: BinaryIO = open(folder / f"items-{process}.bin", "wb")  # noqa: SIM115  closed by `close`
        self._written = 0

    def add(self, row: int, items: np.ndarray) -> None:
        """Write the items `[count, ...]` of a row; raises `ValueError` where they are not like those before."""
        kind = (items.dtype.str, items.shape[1:])
        self.kind = self.kind or kind
        if kind != self.kind:
            raise ValueError(f"items of {kind} after items of {self.kind}")
        self._stream.write(np.ascontiguousarray(items).tobytes())
        self.places[row] = (self.process, self._written, len(items))
        self._written += len(items)

    def close(self) -> None:
        """Finish the file."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()


def finish(partial: Path, folder: Path, places: Sequence[tuple[int, int, int]], about: dict[str, Any]) -> None:
    """Make a folder out of what all processes wrote."""
    np.save(partial / "places.npy", np.asarray(places, dtype=np.int64).reshape(-1, 3))
    (partial / ABOUT).write_text(json.dumps(about, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


class States:
    """The items of rows, read from disk when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about: dict[str, Any] = json.loads((folder / ABOUT).read_text())
        self.places = np.load(folder / "places.npy")
        shape, dtype = tuple(self.about["shape"]), np.dtype(self.about["dtype"])
        self.files = []
        for process in range(self.about["files"]):
            file = folder / f"items-{process}.bin"
            count = file.stat().st_size // max(1, dtype.itemsize * int(np.prod(shape)))
            # A file without items can't be mapped.
            self.files.append(
                np.memmap(file, dtype, "r", shape=(count, *shape)) if count else np.empty((0, *shape), dtype)
            )

    def __len__(self) -> int:
        return len(self.places)

    def read(self, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Items of some rows, one behind the other, and how many each row has."""
        places = self.places[np.asarray(rows)]
        return np.concatenate([self.files[f][start : start + n] for f, start, n in places]), places[:, 2]

    @property
    def megabytes(self) -> float:
        """Size on disk."""
        return sum(file.nbytes for file in self.files) / 2**20


def is_whole(folder: Path) -> bool:
    """Whether a folder has been finished; marks it as used now."""
    if not (folder / ABOUT).is_file():
        return False
    os.utime(folder)
    return True


def make_room(root: Path, *, needed: int, limit: int, keep: Sequence[str] = ()) -> None:
    """Delete the folders that were not used for longest until `needed` bytes fit under `limit`.

    `keep` are names that stay. A process that has a deleted file open goes on reading it.
    """
    if not root.is_dir():
        return
    for left in root.glob(".*"):
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
    whole = [folder for folder in root.iterdir() if (folder / ABOUT).is_file() and not folder.name.startswith(".")]
    sizes = {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in whole}
    total = sum(sizes.values())
    for folder in sorted(whole, key=lambda folder: folder.stat().st_mtime):
        if total + needed <= limit:
            return
        if folder.name not in keep:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]
