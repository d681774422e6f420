"""Rows that occur more than once: within a split, and across splits, where they falsify scores."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

_HAN_KANA = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_SPACE_BESIDE_CJK = re.compile(f"(?<=[{_HAN_KANA}]) | (?=[{_HAN_KANA}])")


class _Folding(dict[int, str | int]):
    """Table for `str.translate`, filled as characters turn up: most texts use a few hundred."""

    def __missing__(self, code: int) -> str | int:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cf":  # zero-width characters, byte order marks
            folded: str | int = ""
        elif category[0] in "PZ" or category == "Cc" or character in string.punctuation:
            folded = " "
        else:
            folded = code
        self[code] = folded
        return folded


_FOLDING = _Folding()


def normalise(text: str) -> str:
    """Fold what does not change what a text says: width, case, white space, punctuation.

    NFKC and casefold; punctuation and white space become one space, none beside Chinese and Japanese
    characters. Emoji and other symbols stay: they carry sentiment. A text of nothing but punctuation
    keeps it, or all of those would be the same text.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = " ".join(folded.translate(_FOLDING).split())
    return _SPACE_BESIDE_CJK.sub("", words) if words else "".join(folded.split())


@dataclass(frozen=True)
class SplitTexts:
    """What the checks look at: one text, one label and one row number a row, in the same order.

    A label is None where a row has none, or where labels are numbers and no classes.
    """

    texts: Sequence[str]
    labels: Sequence[str | None]
    rows: Sequence[int]

    def __post_init__(self) -> None:
        if not len(self.texts) == len(self.labels) == len(self.rows):
            raise ValueError(f"{len(self.texts)} texts, {len(self.labels)} labels, {len(self.rows)} row numbers")

    @cached_property
    def normalised(self) -> list[str]:
        """`normalise` of every text, computed once."""
        return [normalise(text) for text in self.texts]

    @cached_property
    def blank(self) -> list[int]:
        """Positions of rows without a visible character; they are no duplicates of each other."""
        return [i for i, text in enumerate(self.texts) if not text.strip()]

    @cached_property
    def groups(self) -> dict[str, Group]:
        """Where each text stands, word for word."""
        return _group(self.texts, self)

    @cached_property
    def normalised_groups(self) -> dict[str, Group]:
        """Where each text stands once normalised."""
        return _group(self.normalised, self)


@dataclass
class Group:
    """Rows of one text: the position of the first, and the labels that they carry."""

    first: int
    labels: set[str]


Match = tuple[int, int]
"""Numbers of a row and of the first row that holds the same text."""


@dataclass(frozen=True)
class Duplicates:
    """Repetitions inside one split.

    `exact` are rows that repeat an earlier row word for word, `normalised` those that do so only once
    normalised, `conflicts` the rows (first ones too) whose text carries another label in another row.
    """

    exact: list[Match]
    normalised: list[Match]
    conflicts: list[int]


@dataclass(frozen=True)
class Leakage:
    """Rows of another split that stand in `train` too; each match is (row there, row in train).

    `exact` match word for word, `normalised` only once normalised. `conflicts` are those of both kinds
    that stand in train only with another label.
    """

    rows: int
    exact: list[Match]
    normalised: list[Match]
    conflicts: list[Match]


def duplicates(split: SplitTexts) -> Duplicates:
    """Find repeated rows and contradicting labels inside a split; blank rows are left out."""
    found = Duplicates([], [], [])
    # By position, for row numbers may repeat where a split was read from several files.
    for i in _visible(split):
        same = split.groups[split.texts[i]].first
        alike = split.normalised_groups[split.normalised[i]]
        if same != i:
            found.exact.append((split.rows[i], split.rows[same]))
        elif alike.first != i:
            found.normalised.append((split.rows[i], split.rows[alike.first]))
        if len(alike.labels) > 1:
            found.conflicts.append(split.rows[i])
    return found


def leakage(train: SplitTexts, other: SplitTexts) -> Leakage:
    """Find the rows of `other` that stand in `train` too; blank rows are left out."""
    found = Leakage(len(other.rows), [], [], [])
    for i in _visible(other):
        group, matches = train.groups.get(other.texts[i]), found.exact
        if group is None:
            group, matches = train.normalised_groups.get(other.normalised[i]), found.normalised
        if group is None:
            continue
        match = (other.rows[i], train.rows[group.first])
        matches.append(match)
        label = other.labels[i]
        if label is not None and group.labels and label not in group.labels:
            found.conflicts.append(match)
    return found


def _visible(split: SplitTexts) -> list[int]:
    blank = set(split.blank)
    return [i for i in range(len(split.texts)) if i not in blank]


def _group(keys: Sequence[str], split: SplitTexts) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    for i in _visible(split):
        group = groups.setdefault(keys[i], Group(i, set()))
        label = split.labels[i]
        if label is not None:
            group.labels.add(label)
    return groups
