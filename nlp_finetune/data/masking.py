"""Masked language modelling: windows of texts, and which of their tokens are hidden in an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_finetune.data.sequences import IGNORED
from nlp_finetune.data.words import is_cjk
from nlp_finetune.errors import InputError

_NO_WORD = -1
_SHOWN_AS_MASK = 0.8
_SHOWN_AS_RANDOM = 0.1
"""What a hidden token is replaced by: mostly the mask, sometimes any token, else itself (Devlin et al. 2019)."""


def windows(texts: Sequence[str], tokenizer: Any, *, max_length: int) -> dict[str, list[Any]]:
    """Texts cut into windows of at most `max_length` tokens that share none.

    Gives the tokenizer's columns, `words` (for each token the number of its word, -1 for special and
    unknown tokens), `length` and `source` (positions of the texts). A window without any word is left out.
    """
    if not tokenizer.is_fast:
        raise InputError(f"{type(tokenizer).__name__} does not tell which word a token is of: set model.tokenizer.")
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    source, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
    words = [
        [
            _NO_WORD if token == tokenizer.unk_token_id else word
            for token, word in zip(ids, _words(encoded.word_ids(i), offsets[i], texts[source[i]]), strict=True)
        ]
        for i, ids in enumerate(encoded["input_ids"])
    ]
    columns = {name: list(values) for name, values in encoded.items() if name != "attention_mask"}
    columns["source"] = source
    columns |= {"words": words, "length": [len(ids) for ids in columns["input_ids"]]}
    kept = [i for i, numbers in enumerate(words) if max(numbers, default=_NO_WORD) != _NO_WORD]
    return {name: [values[i] for i in kept] for name, values in columns.items()}


def _words(numbers: Sequence[int | None], offsets: Sequence[tuple[int, int]], text: str) -> list[int]:
    """Number of the word of each token, -1 for special tokens; a Chinese or Japanese character is a word.

    BERT's tokenizers take them apart; others know no word boundary but a space, and to them a whole
    Chinese sentence is one word.
    """
    words: list[int] = []
    word = _NO_WORD
    before: tuple[int | None, int] = (None, 0)
    for number, (start, end) in zip(numbers, offsets, strict=True):
        while start < end and text[start].isspace():
            start += 1  # some tokenizers count the space before a word to its first token
        if number is not None and (number != before[0] or _parted(text, before[1], start)):
            word += 1
        words.append(_NO_WORD if number is None else word)
        before = (number, start)
    return words


def _parted(text: str, first: int, second: int) -> bool:
    """Whether two places of a run without spaces are two, and a Chinese or Japanese character stands at either."""
    return first != second and any(is_cjk(text[place]) for place in (first, second) if place < len(text))


def mask_token(tokenizer: Any) -> str:
    """The tokenizer's mask. Raises `InputError` if it has none."""
    if tokenizer.mask_token is None:
        raise InputError(
            f"The tokenizer ({type(tokenizer).__name__}) has no mask token. Take a checkpoint that was trained with "
            "one (BERT, RoBERTa, ...), or task.name=causal_lm for a decoder."
        )
    return str(tokenizer.mask_token)


@dataclass(frozen=True)
class Masking:
    """Hides tokens of an encoded row: `input_ids` without them and `labels` with them, -100 elsewhere.

    About `probability` of the tokens, at least one, are to be predicted; with `whole_words` all
    tokens of a word or none. `replacements` are the ids that may stand in for a hidden token at random.
    """

    mask_id: int
    replacements: np.ndarray
    probability: float
    whole_words: bool

    def __call__(self, example: Mapping[str, Any], random: np.random.Generator) -> dict[str, Any]:
        ids, words = np.asarray(example["input_ids"]), np.asarray(example["words"])
        hidden = self._choose(words, random)
        labels = np.full(len(ids), IGNORED)
        labels[hidden] = ids[hidden]
        chance = random.random(len(hidden))
        stand_in = random.choice(self.replacements, size=len(hidden))
        kept = np.where(chance < _SHOWN_AS_MASK + _SHOWN_AS_RANDOM, stand_in, ids[hidden])
        shown = ids.copy()
        shown[hidden] = np.where(chance < _SHOWN_AS_MASK, self.mask_id, kept)
        rest = {name: value for name, value in example.items() if name != "words"}
        return {**rest, "input_ids": shown.tolist(), "labels": labels.tolist()}

    def _choose(self, words: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Positions to hide: words in random order for as long as they fit."""
        places = np.flatnonzero(words != _NO_WORD)
        units = words[places] if self.whole_words else places
        wanted = max(1, round(self.probability * len(places)))
        names, sizes = np.unique(units, return_counts=True)
        chosen: list[int] = []
        room = wanted
        for unit in random.permutation(len(names)):
            # The first is taken whatever its size: a row of one long word has to teach something too.
            if sizes[unit] <= room or not chosen:
                chosen.append(int(names[unit]))
                room -= int(sizes[unit])
            if room <= 0:
                break
        return places[np.isin(units, chosen)]


def masking(tokenizer: Any, *, probability: float, whole_words: bool) -> Masking:
    """The masking for a tokenizer; special tokens neither are hidden nor stand in for others."""
    mask_token(tokenizer)
    vocabulary = np.array(sorted(set(tokenizer.get_vocab().values())))
    return Masking(
        mask_id=tokenizer.mask_token_id,
        replacements=np.setdiff1d(vocabulary, tokenizer.all_special_ids),
        probability=probability,
        whole_words=whole_words,
    )


def maskable(encoded: Any) -> np.ndarray:
    """All token ids of encoded rows that can be hidden."""
    pairs = zip(encoded["input_ids"], encoded["words"], strict=True)
    parts = [np.asarray(ids)[np.asarray(words) != _NO_WORD] for ids, words in pairs]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])
