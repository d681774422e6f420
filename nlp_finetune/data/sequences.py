"""Token sequences for causal language models: blocks of documents, prompts with completions.

`blocks` and `fitted` give columns for `datasets.map`: `input_ids`, `labels` (the token itself where it is
to be predicted, else -100), `length` and `source` (positions of the rows in the batch). A model predicts
each token from those before it, so the label of a sequence's first token never counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

IGNORED = -100
_PROMPT_SHARE = 4
"""At least this part (a quarter) of a full sequence may be prompt, however long the completion is."""


def tokens(texts: Sequence[str], tokenizer: Any, *, special: bool) -> list[list[int]]:
    """Token ids of texts; with `special` what the tokenizer puts before a text, but no end of text."""
    if not texts:
        return []
    found = tokenizer(list(texts), add_special_tokens=special, truncation=False, verbose=False)["input_ids"]
    end = tokenizer.eos_token_id
    return [ids[:-1] if special and ids and ids[-1] == end else list(ids) for ids in found]


def ended(ids: list[int], tokenizer: Any) -> list[int]:
    """The ids with the token that ends a text, where the tokenizer has one."""
    return ids if tokenizer.eos_token_id is None else [*ids, tokenizer.eos_token_id]


def blocks(texts: Sequence[str], tokenizer: Any, *, size: int, cross_documents: bool) -> dict[str, list[Any]]:
    """Documents cut into blocks of at most `size` tokens, each token but a document's first predicted once.

    A block begins with the last token of the one before, which gives its first prediction something
    to go on. With `cross_documents` the documents of the batch form one stream, each after the end of the
    last: blocks are full, `source` lists the rows of each and `segments` how many predictions each has.
    """
    documents = [ended(ids, tokenizer) for ids in tokens(texts, tokenizer, special=True)]
    columns: dict[str, list[Any]] = {"input_ids": [], "source": []}
    if cross_documents:
        owners = [row for row, ids in enumerate(documents) for _ in ids]
        stream = [token for ids in documents for token in ids]
        columns["segments"] = []
        for start in _starts(len(stream), size):
            columns["input_ids"].append(stream[start : start + size])
            predicted = Counter(owners[start + 1 : start + size])
            columns["source"].append(list(predicted))
            columns["segments"].append(list(predicted.values()))
    else:
        for row, ids in enumerate(documents):
            for start in _starts(len(ids), size):
                columns["input_ids"].append(ids[start : start + size])
                columns["source"].append(row)
    columns["labels"] = columns["input_ids"]
    columns["length"] = [len(ids) for ids in columns["input_ids"]]
    return columns


def _starts(count: int, size: int) -> range:
    """Where the blocks of a sequence begin: each but the first repeats one token."""
    return range(0, count - 1, size - 1)


Labelled = tuple[list[int], list[int]]
"""Token ids and labels of one row."""


def completions(prompts: Sequence[str], targets: Sequence[str], tokenizer: Any) -> list[Labelled]:
    """Prompts, each followed by its completion and the end of the text; the completion alone is learned.

    Both are tokenized on their own, so that a prompt has the same tokens as in generation.
    """
    given = tokens(prompts, tokenizer, special=True)
    learned = [ended(ids, tokenizer) for ids in tokens(targets, tokenizer, special=False)]
    return [(p + t, [IGNORED] * len(p) + t) for p, t in zip(given, learned, strict=True)]


def fitted(sequences: Sequence[Labelled], tokenizer: Any, *, size: int) -> dict[str, list[Any]]:
    """Labelled sequences as columns, each cut to `size` tokens.

    The beginning of what comes before the first label goes first (but not the token that opens every
    text), down to a quarter of `size`; then the end.
    """
    cut = [_shorten(ids, labels, size, tokenizer.bos_token_id) for ids, labels in sequences]
    return {
        "input_ids": [ids for ids, _ in cut],
        "labels": [labels for _, labels in cut],
        "length": [len(ids) for ids, _ in cut],
        "source": list(range(len(cut))),
    }


def _shorten(ids: list[int], labels: list[int], size: int, begin: int | None) -> Labelled:
    if len(ids) <= size:
        return ids, labels
    first = next(i for i, label in enumerate(labels) if label != IGNORED)
    kept = keep_end(ids[:first], max(size - (len(ids) - first), size // _PROMPT_SHARE), begin=begin)
    return (kept + ids[first:])[:size], ([IGNORED] * len(kept) + labels[first:])[:size]


def keep_end(prompt: list[int], size: int, *, begin: int | None) -> list[int]:
    """The last `size` tokens of a prompt, of which `begin`, if it opened the prompt, is still the first."""
    if len(prompt) <= size:
        return prompt
    opening = prompt[:1] if prompt[:1] == [begin] and size > 1 else []
    return opening + prompt[len(prompt) - size + len(opening) :]


def with_targets(encoded: Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """Token ids of encoded rows, and whether each is to be predicted, both `[length]`."""
    import numpy as np

    pairs = zip(encoded["input_ids"], encoded["labels"], strict=True)
    return [(np.asarray(ids), np.asarray(labels) != IGNORED) for ids, labels in pairs]


def next_tokens(labels: torch.Tensor) -> torch.Tensor:
    """What is to be predicted at each position of `labels` `[rows, length]`: the label that comes next."""
    import torch.nn.functional as F

    # Moving the labels, and not the logits, spares a copy of the largest tensor there is.
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED)


class SequenceCollator:
    """Pads token sequences to the longest of the batch, on the right.

    Gives the tokenizer's inputs and `labels` (-100 where padded) as `[rows, longest]`, and `segments` of
    the same shape where blocks hold several rows: which of its rows a prediction belongs to, else -1.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        names = [name for name in self.tokenizer.model_input_names if name in rows[0]]
        inputs = [{name: row[name] for name in names} for row in rows]
        # Left padding, which some tokenizers ask for, would shift positions; it is for generation.
        batch = dict(self.tokenizer.pad(inputs, padding="longest", padding_side="right", return_tensors="pt"))
        longest = batch["input_ids"].shape[1]
        batch["labels"] = _padded([row["labels"] for row in rows], IGNORED, longest)
        if "segments" in rows[0]:
            # The first token of a block is no prediction.
            owners = [[-1, *(i for i, count in enumerate(row["segments"]) for _ in range(count))] for row in rows]
            batch["segments"] = _padded(owners, -1, longest)
        return batch


def _padded(sequences: Sequence[list[int]], filler: int, longest: int) -> torch.Tensor:
    import torch

    return torch.tensor([list(one) + [filler] * (longest - len(one)) for one in sequences], dtype=torch.long)
