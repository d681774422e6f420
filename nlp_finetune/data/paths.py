"""What a string in `data.source` or `data.train` names: a file, a folder, several files, or neither."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from nlp_finetune.errors import InputError

TEXT_SUFFIXES = ("csv", "tsv", "tab", "txt")
JSON_SUFFIXES = ("json", "jsonl", "ndjson")
TABLE_SUFFIXES = ("parquet", "arrow", "feather")
COLUMN_SUFFIXES = ("conll", "bio", "iob", "iob2", "bioes", "bmes")
SUFFIXES = (*TEXT_SUFFIXES, *JSON_SUFFIXES, *TABLE_SUFFIXES, *COLUMN_SUFFIXES)


def data_suffix(path: str) -> str | None:
    """Suffix of a data file in lower case, `.gz` apart; None if it is not one that can be read."""
    suffix = Path(path.lower().removesuffix(".gz")).suffix[1:]
    return suffix if suffix in SUFFIXES else None


def stem(path: str) -> str:
    """Name of a data file without folder, suffix and `.gz`."""
    name = os.path.basename(path)
    return Path(name[:-3] if name.lower().endswith(".gz") else name).stem


def is_pattern(path: str) -> bool:
    """Whether this is a glob, and not the name of something that exists."""
    return any(character in path for character in "*?[") and not exists(path)


def expand(path: str) -> str:
    """The path with `~` replaced by the home folder."""
    return os.path.expanduser(path)


def exists(path: str) -> bool:
    """Whether there is a file or folder of that name."""
    return os.path.exists(expand(path))


def looks_like_path(source: str) -> bool:
    """Whether a source is meant as a path and not as a Hub id."""
    written_as_path = source.startswith((".", "/", "~")) or source.endswith("/") or "*" in source
    return written_as_path or data_suffix(source) is not None or exists(source)


def written_like_file(value: str) -> bool:
    """Whether a split is meant as a file by how it is written; it need not exist."""
    return data_suffix(value) is not None or "/" in value or value.startswith("~")


def missing(path: str) -> InputError:
    """The error for a path that does not exist, with names like it in the same folder."""
    folder = os.path.dirname(expand(path)) or "."
    if not os.path.isdir(folder):
        return InputError(f"{path} does not exist, nor does the folder {os.path.dirname(path)}.")
    similar = similar_names(path)
    hint = f" Did you mean {' or '.join(similar)}?" if similar else ""
    where = "" if os.path.isabs(expand(path)) else f" in {os.getcwd()}"
    return InputError(f"{path} does not exist{where}.{hint}")


def similar_names(path: str) -> list[str]:
    """Existing paths in the same folder whose names are like this one's, at most three."""
    folder, name = os.path.split(path)
    try:
        names = [entry for entry in os.listdir(expand(folder) or ".") if not entry.startswith(".")]
    except OSError:
        return []
    by_key: dict[str, str] = {}
    for entry in sorted(names):
        by_key.setdefault(entry.lower(), entry)
        by_key.setdefault(stem(entry).lower(), entry)
    close = difflib.get_close_matches(name.lower(), by_key, n=3)
    return [os.path.join(folder, entry) for entry in dict.fromkeys(by_key[key] for key in close)]
