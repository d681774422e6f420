"""Train, validation and test files of a folder, found by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from nlp_finetune.data import paths
from nlp_finetune.errors import InputError

WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
_SHARD = re.compile(r"-\d+-of-\d+$")
_BOOKKEEPING = ("dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json")


def split_of(name: str) -> str | None:
    """The split that a name such as `dev`, `valid` or `train` means; None if it means none."""
    return next((split for split, words in WORDS.items() if name.lower() in words), None)


def find(folder: str) -> dict[str, list[str]]:
    """Files of each split that the folder has: `train.tsv`, `my_dev.csv`, shards, or `train/*.csv`.

    Raises `InputError` listing the content if there is no training data, and where it is not clear
    which file is meant.
    """
    root = paths.expand(folder)
    try:
        entries = sorted(entry for entry in os.listdir(root) if not entry.startswith("."))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}.") from error
    files = [entry for entry in entries if _is_data(os.path.join(root, entry))]
    found: dict[str, list[str]] = {}
    for split in WORDS:
        names = _named(split, files, folder=folder)
        if not names:
            names = _in_sub_folder(split, [e for e in entries if os.path.isdir(os.path.join(root, e))], root)
        if names:
            found[split] = [os.path.join(folder, name) for name in names]
    if "train" not in found:
        content = ", ".join(e + "/" if os.path.isdir(os.path.join(root, e)) else e for e in entries[:12])
        raise InputError(
            f"{folder} has no training data: no data file (.csv, .tsv, .jsonl, ...) or sub folder "
            "with 'train' in its name. "
            f"Found: {content or 'nothing'}{', ...' if len(entries) > 12 else ''}. "
            "Name the file with data.source=FILE, or the files with data.train=... data.validation=..."
        )
    return found


def _is_data(path: str) -> bool:
    return os.path.isfile(path) and paths.data_suffix(path) is not None and os.path.basename(path) not in _BOOKKEEPING


def _named(split: str, files: Sequence[str], *, folder: str) -> list[str]:
    """The file called like the split, or the one file (or the shards) with the split in its name."""
    exact = [file for file in files if split_of(paths.stem(file)) == split]
    if len(exact) == 1:
        return exact
    matching = exact or [file for file in files if _splits_in(paths.stem(file)) == {split}]
    if len(matching) > 1 and not all(_SHARD.search(paths.stem(file)) for file in matching):
        raise InputError(
            f"{folder} has several files for {split}: {', '.join(matching)}. "
            f"Say which with data.{split}={os.path.join(folder, matching[0])}."
        )
    return matching


def _splits_in(stem: str) -> set[str]:
    words = re.split(r"[^a-z]+", stem.lower())
    return {split for word in words if (split := split_of(word)) is not None}


def _in_sub_folder(split: str, sub_folders: Sequence[str], root: str) -> list[str]:
    """All data files of the sub folder called like the split."""
    names = [name for name in sub_folders if split_of(name) == split]
    return [
        os.path.join(name, file)
        for name in names
        for file in sorted(os.listdir(os.path.join(root, name)))
        if not file.startswith(".") and _is_data(os.path.join(root, name, file))
    ]
