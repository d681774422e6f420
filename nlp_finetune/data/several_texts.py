"""Rows that hold several texts, each a sequence of its own: the options of a question, the sides of a pair.

An encoded row has one list a text in each input of the tokenizer; a batch holds the texts of all its
rows one after the other, padded to the longest of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def by_row(values: Sequence[Any], counts: Sequence[int]) -> list[list[Any]]:
    """The values of texts that stand one after the other, as one list a row."""
    every = iter(values)
    return [[next(every) for _ in range(count)] for count in counts]


def columns_by_row(encoded: Mapping[str, Any], counts: Sequence[int]) -> dict[str, list[Any]]:
    """A tokenizer's output for texts one after the other, by row, with `length` (tokens of all texts) and `source`."""
    columns: dict[str, list[Any]] = {
        name: by_row(values, counts) for name, values in encoded.items() if name != "attention_mask"
    }
    columns["length"] = [sum(map(len, texts)) for texts in columns["input_ids"]]
    columns["source"] = list(range(len(counts)))
    return columns


def padded(rows: Sequence[Mapping[str, Any]], tokenizer: Any) -> dict[str, torch.Tensor]:
    """The tokenizer's inputs of all texts of all rows, `[texts, longest]`."""
    names = [name for name in tokenizer.model_input_names if name in rows[0]]
    flat = {name: list(chain.from_iterable(row[name] for row in rows)) for name in names}
    return dict(tokenizer.pad(flat, padding="longest", return_tensors="pt"))
