"""Folders of image files: the sub folders are the classes, perhaps inside train, validation and test."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from nlp_finetune.data import FOLDER, folders, paths
from nlp_finetune.data.images import is_image_name
from nlp_finetune.errors import InputError


@dataclass(frozen=True)
class Found:
    """Images of one split, by path from `folder`; `labels` is None where they lie in no class folder."""

    folder: str
    files: list[str]
    labels: list[str] | None

    def table(self) -> pa.Table:
        """Columns `image`, `label` where there are labels, and the folder that the paths start from."""
        columns: dict[str, pa.Array] = {"image": pa.array(self.files)}
        if self.labels is not None:
            columns["label"] = pa.array(self.labels)
        columns[FOLDER] = pa.array([os.path.abspath(paths.expand(self.folder))] * len(self.files))
        return pa.table(columns)

    def digest(self) -> str:
        """Changes with the names, sizes and times of the files."""
        hasher = hashlib.sha256()
        for file in self.files:
            state = os.stat(os.path.join(paths.expand(self.folder), file))
            hasher.update(f"{file}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        return hasher.hexdigest()[:32]


def find(folder: str) -> dict[str, Found] | None:
    """Splits of a folder that holds images and no data file; None for any other folder.

    A folder without train, validation or test inside is `train` alone. Raises `InputError` where images
    lie both in class folders and beside them, and where `train` is missing.
    """
    root = paths.expand(folder)
    entries = _entries(root, folder)
    if any(paths.data_suffix(e) is not None for e in entries if os.path.isfile(os.path.join(root, e))):
        return None
    inside = {split: e for e in entries if (split := folders.split_of(e)) and os.path.isdir(os.path.join(root, e))}
    if not inside:
        only = _split(folder)
        return None if only is None else {"train": only}
    found = {split: part for split in folders.WORDS if (part := _in_split(folder, inside.get(split))) is not None}
    if found and "train" not in found:
        raise InputError(f"{folder} has {', '.join(f'{inside[s]}/' for s in found)} with images, but no train/.")
    return found or None


def _in_split(folder: str, name: str | None) -> Found | None:
    return None if name is None else _split(os.path.join(folder, name))


def _split(folder: str) -> Found | None:
    root = paths.expand(folder)
    entries = _entries(root, folder)
    beside = [e for e in entries if os.path.isfile(os.path.join(root, e)) and is_image_name(e)]
    classes = {e: list(_images(os.path.join(root, e))) for e in entries if os.path.isdir(os.path.join(root, e))}
    classes = {name: files for name, files in classes.items() if files}
    if beside and classes:
        raise InputError(
            f"{folder}: {len(beside)} images (the first is {beside[0]}) lie beside the class folders "
            f"{', '.join(list(classes)[:4])}: what is their class? Move them into a class folder, or out."
        )
    if beside:
        return Found(folder, beside, None)
    if not classes:
        return None
    pairs = [(os.path.join(name, file), name) for name, files in classes.items() for file in files]
    return Found(folder, [file for file, _ in pairs], [name for _, name in pairs])


def _entries(root: str, shown: str) -> list[str]:
    try:
        return sorted(entry for entry in os.listdir(root) if not entry.startswith("."))
    except OSError as error:
        raise InputError(f"{shown} cannot be read: {error.strerror}.") from error


def _images(root: str) -> Iterable[str]:
    """Image files anywhere below a folder, by their path from it, in order."""
    for here, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for file in sorted(files):
            if is_image_name(file) and not file.startswith("."):
                yield os.path.relpath(os.path.join(here, file), root)
