"""A table of synonyms: one word a line, a tab, and what may stand in its place, separated by commas or tabs.

    good<TAB>fine, nice
    高兴<TAB>开心,快乐

Lines that begin with `#` are remarks. What the first column does not hold has no synonyms.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nlp_finetune.data.words import is_cjk
from nlp_finetune.errors import InputError

_BETWEEN = re.compile(r"[\t,，]")  # noqa: RUF001  Chinese commas are meant


@dataclass(frozen=True)
class Synonyms:
    """Words, in lower case, and what may stand in their place; `digest` names the table by its content."""

    table: dict[str, tuple[str, ...]]
    digest: str = ""

    def of(self, word: str) -> tuple[str, ...]:
        """What may stand in the place of a word, none where the table does not hold it."""
        return self.table.get(word.lower(), ())

    def as_long(self, word: str) -> tuple[str, ...]:
        """Of these, those of as many characters."""
        return tuple(other for other in self.of(word) if len(other) == len(word))

    @cached_property
    def longest(self) -> int:
        """Characters of the longest word of Chinese or Japanese characters."""
        return max((len(word) for word in self.table if all(map(is_cjk, word))), default=1)


def read(path: str, say: Callable[[str], None]) -> Synonyms:
    """Read a table; words of several parts are left out, and how many is said.

    Raises `InputError` for a file that is missing, empty or no table, with the line.
    """
    try:
        raw = Path(path).expanduser().read_bytes()
        lines = raw.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"augment.synonym_table {path}: can't be read as UTF-8 text ({error}).") from error
    table: dict[str, tuple[str, ...]] = {}
    several = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        word, tab, rest = line.partition("\t")
        others = [other.strip() for other in _BETWEEN.split(rest) if other.strip()]
        if not tab or not word.strip() or not others:
            raise InputError(
                f"augment.synonym_table {path}, line {number}: expected a word, a tab and its synonyms "
                f"(good<TAB>fine, nice), got {line[:60]!r}."
            )
        word = word.strip()
        single = [other for other in others if other != word and len(other.split()) == 1]
        several += len([other for other in others if len(other.split()) > 1])
        if len(word.split()) > 1:
            several += len(single)
        elif single:
            table[word.lower()] = tuple(dict.fromkeys([*table.get(word.lower(), ()), *single]))
    if not table:
        raise InputError(f"augment.synonym_table {path}: holds no word with a synonym of one word.")
    left = f"; {several} of several words are left out, since one stands for one" if several else ""
    say(f"synonyms: {len(table):,} words of {path}{left}")
    return Synonyms(table, hashlib.sha256(raw).hexdigest()[:16])
