"""Words and the pieces that a tokenizer cuts them into: alignment, windows, batches, and back to words.

A text longer than the model takes is covered by overlapping windows. Every word belongs to one window
only, the one where its first piece has most context, so none is lost and none counts twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nlp_finetune.data import tags as iob2
from nlp_finetune.data.words import joined
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""Label of a piece that does not count: it is no word's first, or its word belongs to another window."""
_NO_WORD = -1


class WordTags(NamedTuple):
    """Predicted tags of some words of a row: positions of the words, numbers of the tags, probabilities."""

    words: np.ndarray
    tags: np.ndarray
    scores: np.ndarray


def encode(
    rows: Mapping[str, list[Any]], tokenizer: Any, *, max_length: int, stride: int, spaced: bool
) -> dict[str, list[Any]]:
    """Tokenize a batch of rows `text`, `starts`, `ends` and, where known, `tags`.

    Returns the tokenizer's columns, and for each piece `words` (the word that it begins, else -1) and
    `covered` (how many words it holds from there on), `labels` (the tag of that word, else -100),
    `length`, and `source`: the position in the batch of the window's row. Neighbouring windows share
    `stride` pieces. A row of which the tokenizer leaves no piece has no window. With `spaced` each word
    is a word to the tokenizer too, as characters between spaces.
    """
    if not tokenizer.is_fast:
        raise InputError(
            f"{type(tokenizer).__name__} does not tell which characters a piece comes from: set model.tokenizer."
        )
    texts, starts = _model_texts(rows, spaced=spaced)
    encoded = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    source = encoded.pop("overflow_to_sample_mapping")
    offsets, special = encoded.pop("offset_mapping"), encoded.pop("special_tokens_mask")
    encoded.pop("attention_mask", None)  # all ones until a batch is padded
    columns: dict[str, list[Any]] = {name: [] for name in (*encoded, "words", "covered", "source", "length")}
    if "tags" in rows:
        columns["labels"] = []
    for row, group in groupby(range(len(source)), key=lambda window: source[window]):
        windows = list(group)
        located = [_first_pieces(texts[row], np.asarray(starts[row]), offsets[w], special[w]) for w in windows]
        owners = _owners(located, [len(offsets[w]) for w in windows])
        for number, window in enumerate(windows):
            mine = np.flatnonzero(owners == number)
            if not len(mine):
                continue
            words, covered = _by_piece(mine, located[number][mine], len(offsets[window]))
            for name, values in encoded.items():
                columns[name].append(values[window])
            columns["words"].append(words.tolist())
            columns["covered"].append(covered.tolist())
            columns["source"].append(row)
            columns["length"].append(len(words))
            if "tags" in rows:
                columns["labels"].append(np.where(words >= 0, np.asarray(rows["tags"][row])[words], IGNORED).tolist())
    return columns


def lengths(rows: Mapping[str, list[Any]], tokenizer: Any, *, spaced: bool) -> list[int]:
    """Pieces of each row, special tokens included, as if it were one window."""
    texts, _ = _model_texts(rows, spaced=spaced)
    return [len(ids) for ids in tokenizer(texts, truncation=False, verbose=False)["input_ids"]]


def _model_texts(rows: Mapping[str, list[Any]], *, spaced: bool) -> tuple[list[str], list[list[int]]]:
    """What the tokenizer reads, and where each word starts in it."""
    if not spaced:
        return rows["text"], rows["starts"]
    texts, starts = [], []
    for text, first, end in zip(rows["text"], rows["starts"], rows["ends"], strict=True):
        apart, offsets = joined([text[a:b] for a, b in zip(first, end, strict=True)], "words")
        texts.append(apart)
        starts.append([start for start, _ in offsets])
    return texts, starts


def _first_pieces(text: str, starts: np.ndarray, offsets: list[tuple[int, int]], special: list[int]) -> np.ndarray:
    """Position of the first piece of each word in a window, -1 for words that do not begin in it."""
    content, begins, ends = [], [], []
    for position, ((begin, end), is_special) in enumerate(zip(offsets, special, strict=True)):
        # Some tokenizers count the space before a word to its first piece.
        while begin < end and text[begin].isspace():
            begin += 1
        if not is_special and begin < end:
            content.append(position)
            begins.append(begin)
            ends.append(end)
    if not content or not len(starts):
        return np.full(len(starts), _NO_WORD)
    found = np.searchsorted(begins, starts, side="right") - 1
    # A character of several bytes may be several pieces with the same offsets.
    first = np.searchsorted(begins, np.asarray(begins)[found], side="left")
    return np.where((found >= 0) & (np.asarray(ends)[found] > starts), np.asarray(content)[first], _NO_WORD)


def _owners(located: list[np.ndarray], sizes: list[int]) -> np.ndarray:
    """Number of the window that each word belongs to: where it is farthest from a cut; -1 for none."""
    contexts = []
    for number, (pieces, size) in enumerate(zip(located, sizes, strict=True)):
        left = np.full(len(pieces), size) if number == 0 else pieces
        right = np.full(len(pieces), size) if number == len(located) - 1 else size - 1 - pieces
        contexts.append(np.where(pieces >= 0, np.minimum(left, right), -1))
    best = np.stack(contexts)
    return np.where(best.max(axis=0) >= 0, best.argmax(axis=0), _NO_WORD)


def _by_piece(words: np.ndarray, pieces: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each piece of a window the first word that it begins (-1 for none), and how many from there on."""
    positions, first, counts = np.unique(pieces, return_index=True, return_counts=True)
    starts, covered = np.full(size, _NO_WORD), np.zeros(size, dtype=np.int64)
    starts[positions], covered[positions] = words[first], counts
    return starts, covered


class WordCollator:
    """Pads encoded windows to the longest of the batch.

    Gives the tokenizer's inputs, `words`, `covered` and, where known, `labels`, each `[windows, longest]`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        names = [name for name in self.tokenizer.model_input_names if name in rows[0]]
        inputs = [{name: row[name] for name in names} for row in rows]
        batch = dict(self.tokenizer.pad(inputs, padding="longest", return_tensors="pt"))
        longest = batch["input_ids"].shape[1]
        left = self.tokenizer.padding_side == "left"
        for name, filler in (("words", _NO_WORD), ("covered", 0), ("labels", IGNORED)):
            if name in rows[0]:
                padding = [[filler] * (longest - len(row[name])) for row in rows]
                padded = [p + row[name] if left else row[name] + p for p, row in zip(padding, rows, strict=True)]
                batch[name] = torch.tensor(padded, dtype=torch.long)
        return batch


def word_tags(logits: torch.Tensor, batch: Mapping[str, Any]) -> list[WordTags]:
    """The likeliest tag of every word of each window, from logits `[windows, pieces, tags]`.

    Words that share a piece share its tag: the later ones continue the entity that the first begins.
    """
    scores, tags = logits.float().softmax(-1).max(-1)
    table = [tensor.cpu().numpy() for tensor in (batch["words"], batch["covered"], tags, scores)]
    return [_spread(*row) for row in zip(*table, strict=True)]


def _spread(words: np.ndarray, covered: np.ndarray, tags: np.ndarray, scores: np.ndarray) -> WordTags:
    begins = words >= 0
    words, covered, tags, scores = words[begins], covered[begins], tags[begins], scores[begins]
    within = np.arange(covered.sum()) - np.repeat(np.cumsum(covered) - covered, covered)
    spread = np.repeat(tags, covered)
    # B- is odd, its I- the next number.
    spread += (within > 0) & (spread % 2 == 1)
    return WordTags(
        (np.repeat(words, covered) + within).astype(np.int32),
        spread.astype(np.int32),
        np.repeat(scores, covered).astype(np.float32),
    )


def merged(windows: Sequence[WordTags]) -> WordTags:
    """Words of all windows of a row."""
    empty = WordTags(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
    return WordTags(*(np.concatenate(part) for part in zip(empty, *windows, strict=True)))


def whole(found: WordTags, count: int) -> tuple[list[int], np.ndarray]:
    """Tags and probabilities of all `count` words of a row.

    A word that the tokenizer dropped (an invisible character, say) is outside, or inside the entity that
    goes on after it.
    """
    tags, scores = np.zeros(count, np.int64), np.ones(count, np.float32)
    tags[found.words], scores[found.words] = found.tags, found.scores
    if len(found.words) < count:
        seen = np.zeros(count, dtype=bool)
        seen[found.words] = True
        for position in np.flatnonzero(~seen):
            after = next((int(tags[i]) for i in range(position, count) if seen[i]), 0)
            before = int(tags[position - 1]) if position else 0
            is_bridge = after > 0 and after % 2 == 0 and before in (after, after - 1)
            tags[position] = after if is_bridge else 0
    return tags.tolist(), scores


def spans(found: WordTags, row: Mapping[str, Any], types: Sequence[str]) -> list[dict[str, Any]]:
    """Predicted entities of a row as `{start, end, label, text, score}`, characters with the end exclusive.

    `score` is the mean probability of the words' tags. Rows that came as lists of words have
    `first_word` and `end_word` (exclusive) too, counted from 0.
    """
    tags, scores = whole(found, len(row["starts"]))
    marked = []
    for first, end, kind in iob2.entities(iob2.repaired(tags)):
        start, stop = row["starts"][first], row["ends"][end - 1]
        score = float(scores[first:end].mean())
        span = {"start": start, "end": stop, "label": types[kind], "text": row["text"][start:stop], "score": score}
        marked.append({**span, "first_word": first, "end_word": end} if row["listed"] else span)
    return marked
