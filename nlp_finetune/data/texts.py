"""Text columns: finding them, reading them, turning them into padded batches of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from nlp_finetune.data import FOLDER, ROW
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

OnLong = Literal["truncate", "head_tail", "window", "error"]

_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("text_a", "text_b"),
    ("text1", "text2"),
)
_SINGLES = ("text", "text_a", "sentence", "review", "content", "comment", "body", "message", "tweet", "document")


def find(data: Dataset, asked: Sequence[str] | None, *, taken: str | Sequence[str] | None) -> list[str]:
    """Names of the one or two text columns: those asked for, else found by usual names.

    `taken` is the label column, which is never text. Raises `InputError` listing the columns.
    """
    if asked is not None:
        missing = [name for name in asked if name not in data.column_names]
        if missing:
            raise InputError(f"task.text: no column {missing[0]!r}. {describe_columns(data)}")
        return list(asked)
    used = {taken} if isinstance(taken, str) else set(taken or ())
    strings = [n for n in string_columns(data) if n not in used]
    by_name = {name.strip().lower(): name for name in strings}
    for first, second in _PAIRS:
        if first in by_name and second in by_name:
            return [by_name[first], by_name[second]]
    for name in _SINGLES:
        if name in by_name:
            return [by_name[name]]
    free = [name for name in strings if name.strip().lower() not in ("label", "labels", "id", "idx", "split")]
    if len(free) == 1:
        return free
    raise InputError(f"No text column found by name. {describe_columns(data)} Set task.text=[COLUMN].")


def string_columns(data: Dataset) -> list[str]:
    """Names of the columns that hold strings."""
    return [n for n, f in data.features.items() if getattr(f, "dtype", None) in ("string", "large_string")]


def describe_columns(data: Dataset) -> str:
    """One sentence that lists the columns of a data set, for messages."""
    return f"Columns: {', '.join(n for n in data.column_names if n not in (ROW, FOLDER))}."


def read(data: Dataset, names: Sequence[str], split: str) -> dict[str, list[Any]]:
    """Columns `text`, for pairs `text_pair`, and `row`, as Python lists.

    Raises `InputError` where a column is absent or a text is missing (None or NaN, not merely empty).
    """
    columns: dict[str, list[Any]] = {ROW: list(data[ROW])}
    for target, name in zip(("text", "text_pair"), names, strict=False):
        if name not in data.column_names:
            raise InputError(f"{split}: no text column {name!r}. {describe_columns(data)}")
        values = list(data[name])
        bad = [row for row, value in zip(columns[ROW], values, strict=True) if is_missing(value)]
        if bad:
            raise InputError(
                f"{split}: column {name!r} has no text in {len(bad)} of {len(values)} rows "
                f"(first: row {bad[0]}). Fill or remove them."
            )
        columns[target] = [value if isinstance(value, str) else str(value) for value in values]
    return columns


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def joined(rows: Dataset) -> list[str]:
    """Each canonical row as one string, for word-count baselines."""
    if "text_pair" not in rows.column_names:
        return list(rows["text"])
    return [f"{a}\n{b}" for a, b in zip(rows["text"], rows["text_pair"], strict=True)]


def token_lengths(rows: Mapping[str, list[Any]], tokenizer: Any) -> list[int]:
    """Tokens of each row, special tokens included, before anything is cut."""
    encoded = tokenizer(rows["text"], rows.get("text_pair"), truncation=False, verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]


def encode(rows: Mapping[str, list[Any]], tokenizer: Any, *, max_length: int, on_long: OnLong) -> dict[str, list[Any]]:
    """Tokenize a batch of canonical rows.

    Returns the tokenizer's columns, `length`, and `source`: for each output the position in the batch
    of the row it comes from (several outputs a row with `on_long="window"`). Raises `InputError` where
    a row is too long and `on_long` is `error`.
    """
    text, pair = rows["text"], rows.get("text_pair")
    if on_long == "error":
        _refuse_long(rows, tokenizer, max_length)
    if on_long == "head_tail":
        text = [_head_and_tail(one, tokenizer, max_length) for one in text] if pair is None else text
    windows = on_long == "window"
    encoded = tokenizer(
        text,
        pair,
        # Windows run over the longer part, so the other text of a pair stays whole in each of them.
        truncation=("only_second" if pair is not None else True) if windows else True,
        max_length=max_length,
        return_overflowing_tokens=windows,
        **({"stride": max_length // 4} if windows else {}),
    )
    columns = {name: list(values) for name, values in encoded.items()}
    columns["source"] = columns.pop("overflow_to_sample_mapping", list(range(len(text))))
    _fill_empty(columns, tokenizer)
    columns["length"] = [len(ids) for ids in columns["input_ids"]]
    columns.pop("attention_mask", None)  # all ones until a batch is padded
    return columns


def _fill_empty(columns: dict[str, list[Any]], tokenizer: Any) -> None:
    """Give rows of no token one: GPT-2's tokenizer puts nothing around an empty text, and no model reads nothing."""
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    one = next((token for token in special if token is not None), 0)
    for position, ids in enumerate(columns["input_ids"]):
        if not ids:
            for name in columns.keys() & set(tokenizer.model_input_names):
                columns[name][position] = [one if name == "input_ids" else 0]


def _refuse_long(rows: Mapping[str, list[Any]], tokenizer: Any, max_length: int) -> None:
    for row, length in zip(rows[ROW], token_lengths(rows, tokenizer), strict=True):
        if length > max_length:
            raise InputError(
                f"row {row} has {length} tokens, more than task.max_length={max_length}. "
                "Raise task.max_length, or choose another task.on_long."
            )


def _head_and_tail(text: str, tokenizer: Any, max_length: int) -> str:
    """Text without its middle, so that about half of what fits is the beginning and half the end."""
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    room = max_length - tokenizer.num_special_tokens_to_add()
    if len(offsets) <= room:
        return text
    head = room // 2
    return text[: offsets[head - 1][1]] + " " + text[offsets[len(offsets) - (room - head)][0] :]


class PaddingCollator:
    """Pads encoded rows to the longest of the batch; labels become one tensor.

    Gives `input_ids` and the tokenizer's other inputs as `[rows, longest]`, and `labels`.
    """

    def __init__(self, tokenizer: Any, *, label_dtype: torch.dtype) -> None:
        self.tokenizer = tokenizer
        self.label_dtype = label_dtype

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        names = [n for n in self.tokenizer.model_input_names if n in rows[0]]
        inputs = [{name: row[name] for name in names} for row in rows]
        batch = dict(self.tokenizer.pad(inputs, padding="longest", return_tensors="pt"))
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows], dtype=self.label_dtype)
        return batch
