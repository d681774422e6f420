"""Rows whose words have tags: finding the columns, and reading words, tags and marked spans from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlp_finetune.data import ROW, words
from nlp_finetune.data.texts import describe_columns, is_missing
from nlp_finetune.data.words import Span, Split
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

_WORD_LISTS = ("tokens", "words", "token", "word", "characters", "chars")
_TEXTS = ("text", "sentence", "content", "document", "body")
_TAGS = ("ner_tags", "tags", "ner", "labels", "label", "ner_labels", "tag", "bio", "iob")
_SPANS = ("spans", "entities", "labels", "label", "annotations", "entity")
_KINDS = ("label", "type", "tag", "entity_group")
_CHARACTERS_FROM = 0.9
"""Lists are lists of characters where at least this share of their words is one character long."""


@dataclass(frozen=True)
class Words:
    """Words of a split: where each stands in the row's text, `[rows][words]`.

    `listed` tells which rows came as lists of words; their text is made by joining them.
    """

    rows: list[int]
    texts: list[str]
    offsets: list[words.Offsets]
    listed: list[bool]

    def of(self, index: int) -> list[str]:
        """Words of the row at a position."""
        text = self.texts[index]
        return [text[start:end] for start, end in self.offsets[index]]


def find(data: Dataset, text: str | None, label: str | None) -> tuple[str, str]:
    """Names of the column with the words or the text and of the column with the tags or spans.

    Those asked for, else found by usual names: lists of words first, then texts. Raises `InputError`
    listing the columns.
    """
    for key, name in (("text", text), ("label", label)):
        if name is not None and name not in data.column_names:
            raise InputError(f"task.{key}: no column {name!r}. {describe_columns(data)}")
    text = text or find_text(data, label)
    if label is None:
        usual = _TAGS if is_list(data, text) else (*_SPANS, *_TAGS)
        label = _by_name(data, usual, taken=text)
    if label is None:
        raise InputError(f"No column of tags or spans found by name. {describe_columns(data)} Set task.label=COLUMN.")
    return text, label


def find_text(data: Dataset, label: str | None = None) -> str:
    """Name of the column with the words or the text, by usual names."""
    lists = [name for name in _WORD_LISTS if (found := _by_name(data, (name,), label)) and is_list(data, found)]
    found = _by_name(data, [*lists, *_TEXTS, *_WORD_LISTS], label)
    if found is None:
        raise InputError(f"No column of words or text found by name. {describe_columns(data)} Set task.text=COLUMN.")
    return found


def _by_name(data: Dataset, usual: Sequence[str], taken: str | None) -> str | None:
    by_name = {name.strip().lower(): name for name in data.column_names if name not in (ROW, taken)}
    return next((by_name[name] for name in usual if name in by_name), None)


def is_list(data: Dataset, column: str) -> bool:
    """Whether the cells of a column are lists."""
    return hasattr(data.features[column], "feature")


def unit(data: Dataset, column: str) -> Split:
    """Whether lists of words are lists of characters; texts are cut into words."""
    if not is_list(data, column):
        return "words"
    sizes = [len(word) for cell in data[column][:] for word in cell or [] if isinstance(word, str)]
    return "characters" if sizes and sizes.count(1) >= _CHARACTERS_FROM * len(sizes) else "words"


def read_words(data: Dataset, column: str, split: str, *, unit: Split, spaced: bool = False) -> Words:
    """Words of every row, from lists or texts; with `spaced`, words of a text are what spaces separate.

    Raises `InputError` naming split and row for a missing text and for a list that holds anything but
    strings.
    """
    if column not in data.column_names:
        raise InputError(f"{split}: no column {column!r}. {describe_columns(data)}")
    texts, offsets, listed = [], [], []
    for row, cell in zip(data[ROW][:], data[column][:], strict=True):
        if is_missing(cell):
            raise InputError(f"{split}: row {row}: column {column!r} is empty. Fill or remove such rows.")
        if not isinstance(cell, str | list):
            raise InputError(
                f"{split}: column {column!r} holds {cell!r} in row {row}: expected a text or a list of words."
            )
        as_list = cell.split() if spaced and isinstance(cell, str) else cell
        if isinstance(as_list, str):
            text, where = as_list, words.split(as_list, unit)
        else:
            _refuse_other_than_words(as_list, column, f"{split}: row {row}")
            text, where = words.joined(as_list, unit)
        texts.append(text)
        offsets.append(where)
        listed.append(isinstance(as_list, list))
    return Words(data[ROW][:], texts, offsets, listed)


def _refuse_other_than_words(cell: list[Any], column: str, where: str) -> None:
    odd = next((word for word in cell if not isinstance(word, str)), None)
    if odd is not None or None in cell:
        raise InputError(f"{where}: column {column!r} holds {odd!r} among its words: expected a list of texts.")


def marks_spans(data: Dataset, column: str) -> bool:
    """Whether a label column holds spans of characters, and not a tag for every word."""
    feature = data.features[column]
    inner = getattr(feature, "feature", feature)
    if isinstance(inner, Mapping):
        return True
    # A file in which no row has a span gives no types.
    return getattr(inner, "dtype", None) == "null"


def has_spaced_tags(data: Dataset, column: str) -> bool:
    """Whether the tags of a row are one string, separated by spaces."""
    return getattr(data.features[column], "dtype", None) in ("string", "large_string")


def has_labels(data: Dataset, column: str) -> bool:
    """Whether a split has the label column with anything in it (a test file may have none)."""
    return column in data.column_names and not all(cell is None for cell in data[column][:])


def read_tags(data: Dataset, column: str, split: str, found: Words, *, names: Sequence[str] | None) -> list[list[str]]:
    """Tags as the data have them, one for every word; numbers by their class names, else by `names`.

    Raises `InputError` naming split and row where tags are missing, not as many as the words, or
    numbers that have no name.
    """
    feature = data.features[column]
    known = getattr(getattr(feature, "feature", feature), "names", None) or names
    tags = []
    for index, cell in enumerate(data[column][:]):
        where = f"{split}: row {found.rows[index]}"
        if is_missing(cell):
            raise InputError(f"{where}: no tags in column {column!r}. Fill or remove such rows.")
        listed = cell.split() if isinstance(cell, str) else cell
        if not isinstance(listed, list):
            raise InputError(f"{where}: column {column!r} holds {cell!r}, not a tag for every word.")
        if len(listed) != len(found.offsets[index]):
            raise InputError(
                f"{where}: {len(found.offsets[index])} words, but {len(listed)} tags in column {column!r}. "
                "Every word needs a tag."
            )
        tags.append([_named(tag, known, where, column) for tag in listed])
    return tags


def _named(tag: Any, known: Sequence[str] | None, where: str, column: str) -> str:
    if isinstance(tag, str) and tag.strip():
        return tag
    if not isinstance(tag, int):
        raise InputError(f"{where}: column {column!r} holds {tag!r}, which is no tag.")
    if known is None:
        raise InputError(
            f"{where}: the tags in column {column!r} are numbers without names. "
            "Name them in their order: task.tag_names=[O,B-PER,I-PER,...]."
        )
    if not 0 <= tag < len(known):
        raise InputError(f"{where}: column {column!r} holds the tag {tag}, but there are {len(known)} names.")
    return known[tag]


def read_spans(data: Dataset, column: str, split: str, found: Words) -> list[list[str]]:
    """Tags of the words that the marked spans of each row cover, in IOB2.

    A span is `{start, end, label}`: characters, the end exclusive. Raises `InputError` naming split and
    row for what is no span, out of range, overlapping, or not at word boundaries.
    """
    tags = []
    for index, cell in enumerate(data[column][:]):
        where = f"{split}: row {found.rows[index]}"
        if cell is None:
            raise InputError(f"{where}: no spans in column {column!r}; a row without any has an empty list.")
        spans = [_span(item, where, column) for item in _items(cell)]
        tags.append(words.tag_spans(spans, found.offsets[index], found.texts[index], where=where))
    return tags


def _items(cell: Any) -> list[Any]:
    """Spans of a row; older data sets have a list for each key in place of a list of spans."""
    if not isinstance(cell, dict):
        return list(cell)
    return [dict(zip(cell, values, strict=True)) for values in zip(*cell.values(), strict=True)]


def _span(item: Any, where: str, column: str) -> Span:
    label = next((item[key] for key in _KINDS if item.get(key) is not None), None) if isinstance(item, dict) else None
    if label is None or not all(type(item.get(key)) is int for key in ("start", "end")):
        raise InputError(f"{where}: column {column!r} holds {item!r}; a span is {{start, end, label}}.")
    return Span(item["start"], item["end"], str(label))
