"""A text as the words that augmentation works on, and back.

Words stand between white space; a text with Chinese or Japanese characters is taken by characters, where runs of
other letters and digits stay together. Stretches that must stay (an answer) are one word each, and `fixed`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from nlp_finetune.data import words as data_words

_SPACED = re.compile(r"\S+")


class Word(NamedTuple):
    """A word, what stands before it (white space, or nothing), and whether it must stay as it is."""

    gap: str
    text: str
    fixed: bool = False


def is_by_characters(text: str) -> bool:
    """Whether a text is written without spaces between words, in part at least."""
    return any(map(data_words.is_cjk, text))


def split(text: str, kept: Sequence[tuple[int, int]] = ()) -> list[Word]:
    """Words of a text, each of the stretches `kept` (characters, end exclusive, in order, apart) one fixed word.

    The last word is empty and fixed: it holds the white space at the end. `join` gives the same text back.
    """
    by_characters = is_by_characters(text)
    places: list[tuple[int, int, bool]] = []
    before = 0
    for start, end in [*kept, (len(text), len(text))]:
        places += [(before + a, before + b, False) for a, b in _offsets(text[before:start], by_characters)]
        places.append((start, end, True))
        before = end
    return of_places(text, places)


def of_places(text: str, places: Sequence[tuple[int, int, bool]]) -> list[Word]:
    """The words that stand at these places (first character, end, whether it is fixed), in order and apart."""
    ends = [0, *(end for _, end, _ in places)]
    return [Word(text[gap:a], text[a:b], fixed) for gap, (a, b, fixed) in zip(ends, places, strict=False)]


def _offsets(text: str, by_characters: bool) -> list[tuple[int, int]]:
    if by_characters:
        return data_words.split(text, "words")
    return [match.span() for match in _SPACED.finditer(text)]


def join(words: Sequence[Word]) -> tuple[str, list[tuple[int, int]]]:
    """The text of words, and where each of them stands in it."""
    parts: list[str] = []
    places: list[tuple[int, int]] = []
    at = 0
    for word in words:
        at += len(word.gap)
        places.append((at, at + len(word.text)))
        at += len(word.text)
        parts += [word.gap, word.text]
    return "".join(parts), places


def between(before: str, after: str, *, by_characters: bool) -> str:
    """What stands between two neighbouring words."""
    if not by_characters:
        return " "
    return " " if _is_latin(before[-1:]) and _is_latin(after[:1]) else ""


def _is_latin(character: str) -> bool:
    """Whether a character is a letter or digit of a script with spaces."""
    return character.isalnum() and not data_words.is_cjk(character)
