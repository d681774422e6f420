"""Paths of this machine, and what may be said of them to others: their last part."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PureWindowsPath
from typing import Any

_PATH_KEY = re.compile(r"(name_or_path|_file|_path|_dir)$")


def is_of_this_machine(text: str) -> bool:
    """Whether a text is an absolute path, or one below a home folder."""
    windows = PureWindowsPath(text)
    is_absolute = text.startswith(("/", "~")) or bool(windows.drive and windows.root)
    return is_absolute and len(windows.parts) > 2 - text.startswith("~")


def last_part(path: str) -> str:
    """Name of a file or folder, whichever kind of slashes its path has."""
    return PureWindowsPath(path).name


def public(value: Any) -> Any:
    """A recipe's value; of paths that only this machine has, the last part."""
    if isinstance(value, dict):
        return {key: public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [public(item) for item in value]
    return last_part(value) if isinstance(value, str) and is_of_this_machine(value) else value


def public_keys(content: Any, base: str) -> Any:
    """A configuration, its base called `base`; only keys that name files are looked at: a label may begin with `/`."""
    if not isinstance(content, dict):
        return content
    cleaned = {}
    for key, value in content.items():
        if isinstance(value, str) and _PATH_KEY.search(key) and is_of_this_machine(value):
            cleaned[key] = base if key.endswith("name_or_path") else last_part(value)
        else:
            cleaned[key] = public_keys(value, base)
    return cleaned


def public_words(command: Iterable[str]) -> list[str]:
    """Words of a command line; values of `key=value` and `--option=value` count as words too."""
    found = []
    for word in command:
        key, equals, value = word.partition("=")
        found.append(f"{key}{equals}{public(value)}" if equals else str(public(word)))
    return found
