"""Questions with options as model inputs: every option is a sequence of its own, none is padding.

A row's options stand one after the other, and a batch holds the options of its rows as `[1, options,
tokens]`: to a transformers model for multiple choice that is one row with many options. Rows with
fewer options cost less and need no mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from nlp_finetune.data import ROW
from nlp_finetune.data.several_texts import by_row, columns_by_row, padded
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    import torch

OnLong = Literal["truncate", "error"]
COUNTS = "option_counts"
"""Options of each row of a batch, `[rows]`."""


def encode(rows: Mapping[str, list[Any]], tokenizer: Any, *, max_length: int, on_long: OnLong) -> dict[str, list[Any]]:
    """Tokenize the options of canonical rows, each behind its question.

    Each input of the tokenizer becomes a list of one list an option; `length` counts the tokens of all
    options of a row. A context stands first, and the question with the option second. What is too
    long loses its longer part's end first. Raises `InputError` where a row is too long and `on_long`
    is `error`.
    """
    if on_long == "error":
        for row, length in zip(rows[ROW], token_lengths(rows, tokenizer), strict=True):
            if length > max_length:
                raise InputError(
                    f"row {row} has an option of {length} tokens with its question, more than "
                    f"task.max_length={max_length}. Raise task.max_length, or set task.on_long=truncate."
                )
    first, second = _sequences(rows)
    encoded = tokenizer(first, second, truncation="longest_first", max_length=max_length)
    counts = [len(options) for options in rows["options"]]
    return columns_by_row(encoded, counts)


def token_lengths(rows: Mapping[str, list[Any]], tokenizer: Any) -> list[int]:
    """Tokens of each row's longest option, with its question and special tokens, before anything is cut."""
    encoded = tokenizer(*_sequences(rows), truncation=False, verbose=False)
    lengths = by_row([len(ids) for ids in encoded["input_ids"]], [len(options) for options in rows["options"]])
    return [max(options) for options in lengths]


def _sequences(rows: Mapping[str, list[Any]]) -> tuple[list[str], list[str]]:
    """Both sequences of every option of every row."""
    first: list[str] = []
    second: list[str] = []
    contexts = rows.get("context") or [None] * len(rows["question"])
    for context, question, options in zip(contexts, rows["question"], rows["options"], strict=True):
        first += [question if context is None else context] * len(options)
        second += options if context is None else [f"{question} {option}" for option in options]
    return first, second


class OptionsCollator:
    """Pads the options of all rows of a batch to the longest of them.

    Gives the tokenizer's inputs as `[1, options, longest]`, `option_counts` `[rows]`, and where they are
    known `labels` `[rows]`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        batch = {name: tensor.unsqueeze(0) for name, tensor in padded(rows, self.tokenizer).items()}
        batch[COUNTS] = torch.tensor([len(row["input_ids"]) for row in rows])
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch
