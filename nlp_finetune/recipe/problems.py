"""What is wrong in a recipe: collected, so that a user sees everything at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nlp_finetune.errors import InputError


@dataclass(frozen=True)
class Problem:
    """One mistake: the dotted path it is at, the place that says so (file:line), and what is wrong."""

    path: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.path} ({self.where}): {self.message}" if self.path else f"{self.where}: {self.message}"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` is most likely meant to be, or None."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no known word is near."""
    name = closest(word, known)
    return f"; did you mean '{name}'?" if name else ""


def refusal(what: str, problems: Sequence[Problem]) -> InputError:
    """One error that lists all problems."""
    lines = list(dict.fromkeys(str(problem) for problem in problems))
    if len(lines) == 1:
        return InputError(f"{what}: {lines[0]}")
    return InputError("\n  ".join([f"{what} has {len(lines)} problems:", *lines]))
