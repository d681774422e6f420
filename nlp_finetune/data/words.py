"""Texts cut into words, and marked spans of characters as tags of those words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Literal

from nlp_finetune.errors import InputError

Split = Literal["words", "characters"]
Offsets = list[tuple[int, int]]
"""First character of each word and the one after its last."""

_SPACE, _ALONE, _PART = " ", "c", "w"
_CJK = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (exclusive) of a text, and what they are."""

    start: int
    end: int
    label: str


def split(text: str, unit: Split) -> Offsets:
    """Offsets of the words of a text, or of its characters but white space.

    A word is a run of letters, marks and digits; Chinese and Japanese characters, punctuation and
    symbols stand alone, as they do in BERT's tokenizers.
    """
    if unit == "characters":
        return [(i, i + 1) for i, character in enumerate(text) if not character.isspace()]
    offsets: Offsets = []
    for kind, run in groupby(range(len(text)), key=lambda i: _kind(text[i])):
        positions = list(run)
        if kind == _PART:
            offsets.append((positions[0], positions[-1] + 1))
        elif kind == _ALONE:
            offsets += [(i, i + 1) for i in positions]
    return offsets


def is_cjk(character: str) -> bool:
    """Whether a character is Chinese or Japanese script, which is written without spaces."""
    return any(first <= ord(character) <= last for first, last in _CJK)


@lru_cache(maxsize=20_000)
def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if character.isspace() or category == "Cc":
        return _SPACE
    if is_cjk(character):
        return _ALONE
    # Format characters join or shape the letters around them.
    return _PART if category[0] in "LMN" or category == "Cf" or character == "_" else _ALONE


def joined(words: Sequence[str], unit: Split) -> tuple[str, Offsets]:
    """A list of words as one text, and where each stands in it: characters without spaces between them."""
    between = "" if unit == "characters" else " "
    offsets: Offsets = []
    start = 0
    for word in words:
        offsets.append((start, start + len(word)))
        start += len(word) + len(between)
    return between.join(words), offsets


def tag_spans(spans: Sequence[Span], offsets: Offsets, text: str, *, where: str) -> list[str]:
    """IOB2 tags of the words that spans of a text cover; white space at the ends of a span does not count.

    Raises `InputError` beginning with `where` for a span that is out of range or empty, overlaps
    another, or begins or ends inside a word.
    """
    tags = ["O"] * len(offsets)
    starts = {start: i for i, (start, _) in enumerate(offsets)}
    ends = {end: i for i, (_, end) in enumerate(offsets)}
    before: Span | None = None
    for given in sorted(spans, key=lambda span: (span.start, span.end)):
        span = _trimmed(given, text, where)
        if before is not None and span.start < before.end:
            raise InputError(
                f"{where}: the spans {_shown(before, text)} and {_shown(given, text)} overlap. "
                "Keep one of them: a word has one tag."
            )
        if span.start not in starts or span.end not in ends:
            raise InputError(
                f"{where}: the span {_shown(given, text)} {_cut(span, starts, ends, offsets, text)}. Let it begin and "
                "end at word boundaries (are the offsets characters, the end exclusive?), or set task.split=characters "
                "for languages written without spaces."
            )
        first, last = starts[span.start], ends[span.end]
        tags[first : last + 1] = [f"B-{span.label}"] + [f"I-{span.label}"] * (last - first)
        before = span
    return tags


def _trimmed(span: Span, text: str, where: str) -> Span:
    if not 0 <= span.start < span.end <= len(text):
        problem = "is empty" if span.start == span.end else "is out of range"
        raise InputError(
            f"{where}: the span {span.start} to {span.end} ({span.label}) {problem}; "
            f"the text has {len(text)} characters, and a span's end is exclusive."
        )
    if not span.label:
        raise InputError(f"{where}: the span {_shown(span, text)} has no label.")
    inside = text[span.start : span.end]
    if not inside.strip():
        raise InputError(f"{where}: the span {_shown(span, text)} holds nothing but white space.")
    left = len(inside) - len(inside.lstrip())
    return Span(span.start + left, span.start + len(inside.rstrip()), span.label)


def _cut(span: Span, starts: dict[int, int], ends: dict[int, int], offsets: Offsets, text: str) -> str:
    edge, verb = (span.start, "begins") if span.start not in starts else (span.end, "ends")
    word = next((text[a:b] for a, b in offsets if a < edge < b), "")
    return f"{verb} inside the word {word!r}" if word else f"{verb} at no word"


def _shown(span: Span, text: str) -> str:
    return f"{span.start} to {span.end} ({span.label}, {text[span.start : span.end][:40]!r})"
