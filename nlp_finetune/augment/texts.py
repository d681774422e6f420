"""Functions that change a text at random: pure, `(words, generator) -> words`, each saying what it keeps.

    LABEL   what the text is about, and so its class or score, for all but rare words at shares of about 0.1
    SPANS   marked stretches of the text (an answer, the name of a person): they stay as they are
    WORDS   every word keeps its place, so that what belongs to it (a tag) still does

`share` is the probability of each word (or of each place between words) to be changed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from nlp_finetune.augment.synonyms import Synonyms
from nlp_finetune.augment.words import Word, between, is_by_characters, join, split
from nlp_finetune.data.words import is_cjk

LABEL, SPANS, WORDS = "label", "spans", "words"
_CORE = re.compile(r"\w(?:.*\w)?", re.DOTALL)
_MARKS, _CHINESE_MARKS = ".,;:?!", "。，；：？！、"  # noqa: RUF001  Chinese marks are meant
_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))
"""Letters of a keyboard, and how far each row of keys is shifted to the right, in keys."""
_NEXT_KEY = 1.3
"""Keys that touch are at most so far apart."""


class TextFunction(Protocol):
    """Changes words at random; draws from the generator alone and leaves the words it is given as they are."""

    name: ClassVar[str]
    keeps: ClassVar[frozenset[str]]

    def __call__(self, words: Sequence[Word], random: np.random.Generator) -> list[Word]: ...


@dataclass(frozen=True)
class Delete:
    """Leaves words out, never all (Wei and Zou 2019, EDA: Easy Data Augmentation Techniques)."""

    share: float
    name: ClassVar[str] = "delete"
    keeps: ClassVar[frozenset[str]] = frozenset({LABEL, SPANS})

    def __call__(self, words: Sequence[Word], random: np.random.Generator) -> list[Word]:
        gone = random.random(len(words)) < self.share
        kept: list[Word] = []
        gap: str | None = None
        for word, is_gone in zip(words, gone, strict=True):
            if is_gone and not word.fixed:
                gap = word.gap if gap is None else gap
                continue
            # What stood before the first that is left out stands before the next, or words would grow together.
            grows = gap is not None and word.text and not (word.gap and kept)
            kept.append(word._replace(gap=str(gap)) if grows else word)
            gap = None
        return kept if any(word.text for word in kept) else list(words)


@dataclass(frozen=True)
class Swap:
    """Exchanges words with others, anywhere in the text (EDA)."""

    share: float
    name: ClassVar[str] = "swap"
    keeps: ClassVar[frozenset[str]] = frozenset({LABEL, SPANS})

    def __call__(self, words: Sequence[Word], random: np.random.Generator) -> list[Word]:
        found = list(words)
        free = free_places(found)
        for place in chosen_places(free, self.share, random):
            other = free[int(random.integers(len(free)))]
            found[place], found[other] = (
                found[place]._replace(text=found[other].text),
                found[other]._replace(text=found[place].text),
            )
        return found


@dataclass(frozen=True)
class Insert:
    """Puts words between words: synonyms of words of the text where there is a table (EDA), else copies of them."""

    share: float
    synonyms: Synonyms | None = None
    name: ClassVar[str] = "insert"
    keeps: ClassVar[frozenset[str]] = frozenset({LABEL, SPANS})

    def __call__(self, words: Sequence[Word], random: np.random.Generator) -> list[Word]:
        free = free_places(words)
        by_characters = is_by_characters("".join(word.text for word in words))
        chosen = set(chosen_places(free, self.share, random))
        found: list[Word] = []
        for place, word in enumerate(words):
            found.append(word)
            # In front of something that stands close, like the end of a price, a word would become part of it.
            is_close = not by_characters and place + 2 < len(words) and not words[place + 1].gap
            if place in chosen and not is_close:
                new = self._word(words[free[int(random.integers(len(free)))]].text, random)
                found.append(Word(between(word.text, new, by_characters=by_characters), new))
        return found

    def _word(self, model: str, random: np.random.Generator) -> str:
        if self.synonyms is None:
            return model
        before, core, after = word_parts(model)
        options = self.synonyms.of(core)
        return f"{before}{pick(options, random)}{after}" if options else model


@dataclass(frozen=True)
class Synonym:
    """Replaces words by synonyms of a table (EDA); of Chinese words, by those of as many characters."""

    share: float
    synonyms: Synonyms
    name: ClassVar[str] = "synonym"
    keeps: ClassVar[frozenset[str]] = frozenset({LABEL, SPANS, WORDS})

    def __call__(self, words: Sequence[Word], random: np.random.Generator) -> list[Word]:
        found = list(words)
        place = 0
        while place < len(found):
            length, options = self._match(found, place)
            if options and random.random() < self.share:
                new = pick(options, random)
                if length == 1:
                    before, core, after = word_parts(found[place].text)
                    found[place] = found[place]._replace(text=f"{before}{in_case_of(core, new)}{after}")
                else:
                    for i, character in enumerate(new):
                        found[place + i] = found[place + i]._replace(text=character)
            place += length
        return found

    def _match(self, words: Sequence[Word], place: int) -> tuple[int, tuple[str, ...]]:
        """How many words from here on are one of the table, the most that are, and what may replace them."""
        for length in range(min(self.synonyms.longest, len(words) - place), 1, -1):
            part = words[place : place + length]
            # A word of several characters: each of them one word here, with nothing between them.
            if all(len(w.text) == 1 and is_cjk(w.text) and not w.fixed for w in part) and not any(
                w.gap for w in part[1:]
            ):
                options = self.synonyms.as_long("".join(w.text for w in part))
                if options:
                    return length, options
        word = words[place]
        if word.fixed:
            return 1, ()
        core = word_parts(word.text)[1]
        is_character = len(core) == 1 and is_cjk(core)
        return 1, self.synonyms.as_long(core) if is_character else self.synonyms.of(core)


@dataclass(frozen=True)
class Typo:
    """Hits a key beside the right one in words of Latin letters, once a word."""

    share: float
    name: ClassVar[str] = "typo"
    keeps: ClassVar[frozenset[str]] = frozenset({LABEL, SPANS, WORDS})

    def __call__(self, words: Sequence[Word], random: np.random.Generator) -> list[Word]:
        found = list(words)
        for place in chosen_places(free_places(found), self.share, random):
            text = found[place].text
            letters = [i for i, letter in enumerate(text) if letter.lower() in NEIGHBOURS]
            if letters:
                at = letters[int(random.integers(len(letters)))]
                near = pick(NEIGHBOURS[text[at].lower()], random)
                wrong = near.upper() if text[at].isupper() else near
                found[place] = found[place]._replace(text=text[:at] + wrong + text[at + 1 :])
        return found


@dataclass(frozen=True)
class Case:
    """Writes words in lower case, in upper case or capitalised, whichever they are not."""

    share: float
    name: ClassVar[str] = "case"
    keeps: ClassVar[frozenset[str]] = frozenset({LABEL, SPANS, WORDS})

    def __call__(self, words: Sequence[Word], random: np.random.Generator) -> list[Word]:
        found = list(words)
        for place in chosen_places(free_places(found), self.share, random):
            text = found[place].text
            ways = dict.fromkeys([text.lower(), text.upper(), text.capitalize()])
            others = [way for way in ways if way != text and len(way) == len(text)]
            if others:
                found[place] = found[place]._replace(text=pick(others, random))
        return found


@dataclass(frozen=True)
class Punctuation:
    """Puts marks after words that have none (Karimi et al. 2021, AEDA: An Easier Data Augmentation Technique)."""

    share: float
    name: ClassVar[str] = "punctuation"
    keeps: ClassVar[frozenset[str]] = frozenset({LABEL, SPANS})

    def __call__(self, words: Sequence[Word], random: np.random.Generator) -> list[Word]:
        marks = _CHINESE_MARKS if is_by_characters("".join(word.text for word in words)) else _MARKS
        chosen = set(chosen_places(free_places(words), self.share, random))
        found: list[Word] = []
        for place, word in enumerate(words):
            found.append(word)
            if place in chosen and word.text[-1:].isalnum():
                found.append(Word("", pick(marks, random)))
        return found


FUNCTIONS: tuple[type[TextFunction], ...] = (Synonym, Insert, Swap, Delete, Punctuation, Case, Typo)
"""All functions that need no model, in the order in which they are applied: meaning first, spelling last."""


@dataclass(frozen=True)
class TextChange:
    """Several functions, one after the other."""

    functions: Sequence[TextFunction]

    def words(self, words: Sequence[Word], random: np.random.Generator) -> list[Word]:
        """Words changed by all functions."""
        found = list(words)
        for function in self.functions:
            found = function(found, random)
        return found

    def text(self, text: str, random: np.random.Generator) -> str:
        """A text changed by all functions."""
        return join(self.words(split(text), random))[0]

    def around(self, text: str, span: tuple[int, int], random: np.random.Generator) -> tuple[str, int]:
        """A text changed but for one stretch of characters (end exclusive), and where that begins now."""
        words = self.words(split(text, [span]), random)
        changed, places = join(words)
        (start,) = [place[0] for word, place in zip(words[:-1], places, strict=False) if word.fixed]
        return changed, start


def pick(options: Sequence[str], random: np.random.Generator) -> str:
    """One of several, each as likely."""
    return options[int(random.integers(len(options)))]


def in_case_of(model: str, word: str) -> str:
    """A word in capitals, capitalised or as it is, like the one in whose place it stands."""
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


def free_places(words: Sequence[Word]) -> list[int]:
    """Places of the words that may change."""
    return [i for i, word in enumerate(words) if not word.fixed]


def chosen_places(places: Sequence[int], share: float, random: np.random.Generator) -> list[int]:
    """Places, each with the probability `share`."""
    return [place for place, chance in zip(places, random.random(len(places)), strict=True) if chance < share]


def word_parts(word: str) -> tuple[str, str, str]:
    """A word without the marks around it, and these."""
    core = _CORE.search(word)
    return (word[: core.start()], core[0], word[core.end() :]) if core else ("", word, "")


def _neighbours() -> dict[str, str]:
    keys = {k: (shift + i, y) for y, (row, shift) in enumerate(_ROWS) for i, k in enumerate(row)}
    return {
        key: "".join(o for o, (u, v) in keys.items() if o != key and np.hypot(u - x, v - y) < _NEXT_KEY)
        for key, (x, y) in keys.items()
    }


NEIGHBOURS = _neighbours()
"""Keys that touch the key of each letter."""
