"""Questions with their contexts as windows of tokens that keep the character offsets of the context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nlp_finetune.data.questions import UNKNOWN

OUTSIDE = -1
"""Character offset of a token that is not of the context: question, special tokens, padding."""
IGNORED = -100
"""Label of a window whose answer is known as text only; the losses leave it out."""


def token_lengths(rows: Mapping[str, list[Any]], tokenizer: Any) -> list[int]:
    """Tokens of question and context together, special tokens included, before anything is cut."""
    encoded = tokenizer(rows["question"], rows["context"], truncation=False, verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]


def encode(rows: Mapping[str, list[Any]], tokenizer: Any, *, max_length: int, stride: int) -> dict[str, list[Any]]:
    """Tokenize a batch of canonical rows: the question, then as much of the context as fits, in windows.

    Neighbouring windows share `stride` tokens of the context; a question that fills more than half of
    `max_length` loses its end. Each window has the tokenizer's columns, `length`, `source` (position of
    its row in the batch), `char_start` and `char_end` (offsets in the context for each token, `OUTSIDE`
    for others), `null_position` (token that stands for "no answer here") and, where answers are known,
    `start_positions` and `end_positions` (tokens of the first gold answer with a known place, the null
    position where the window does not hold all of it, `IGNORED` where no place is known).
    """
    encoded = tokenizer(
        _shortened(rows["question"], tokenizer, max_length),
        rows["context"],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    columns = {name: list(values) for name, values in encoded.items()}
    columns["source"] = columns.pop("overflow_to_sample_mapping")
    columns["length"] = [len(ids) for ids in columns["input_ids"]]
    columns.pop("attention_mask", None)  # all ones until a batch is padded
    offsets = [_context_offsets(encoded, i) for i in range(len(columns["source"]))]
    columns.pop("offset_mapping")
    columns["char_start"] = [pairs[:, 0].tolist() for pairs in offsets]
    columns["char_end"] = [pairs[:, 1].tolist() for pairs in offsets]
    columns["null_position"] = [_null_position(ids, tokenizer) for ids in columns["input_ids"]]
    if "answers" in rows:
        labels = [
            _label(rows["answers"][row], rows["starts"][row], pairs, null)
            for row, pairs, null in zip(columns["source"], offsets, columns["null_position"], strict=True)
        ]
        columns["start_positions"] = [start for start, _ in labels]
        columns["end_positions"] = [end for _, end in labels]
    return columns


def _shortened(questions: Sequence[str], tokenizer: Any, max_length: int) -> list[str]:
    """The questions without what exceeds half of the window, so that the context has room."""
    room = (max_length - tokenizer.num_special_tokens_to_add(pair=True)) // 2
    encoded = tokenizer(list(questions), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [
        question if len(offsets) <= room else question[: offsets[room - 1][1]]
        for question, offsets in zip(questions, encoded["offset_mapping"], strict=True)
    ]


def _context_offsets(encoded: Any, window: int) -> np.ndarray:
    """Character offsets `[tokens, 2]` of one window."""
    offsets = np.array(encoded["offset_mapping"][window], dtype=np.int64).reshape(-1, 2)
    in_context = np.array([part == 1 for part in encoded.sequence_ids(window)], dtype=bool)
    return np.where(in_context[:, None], offsets, OUTSIDE)


def _null_position(ids: Sequence[int], tokenizer: Any) -> int:
    """Position of the classification token, or the first where a family has none."""
    return ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0


def _label(answers: Sequence[str], starts: Sequence[int], offsets: np.ndarray, null: int) -> tuple[int, int]:
    """First and last token of the answer in one window."""
    if not answers:
        return null, null
    known = [(start, start + len(text)) for text, start in zip(answers, starts, strict=True) if start != UNKNOWN]
    if not known:
        return IGNORED, IGNORED
    first, last = known[0]
    tokens = np.flatnonzero(offsets[:, 0] != OUTSIDE)
    if not len(tokens) or offsets[tokens[0], 0] > first or offsets[tokens[-1], 1] < last:
        return null, null
    inside = tokens[(offsets[tokens, 1] > first) & (offsets[tokens, 0] < last)]
    # Characters that the tokenizer drops make no token: the window does not show the answer.
    return (int(inside[0]), int(inside[-1])) if len(inside) else (null, null)


class WindowCollator:
    """Pads windows to the longest of the batch.

    Gives `input_ids` and the tokenizer's other inputs, `char_start` and `char_end` as `[windows,
    longest]`, padded on the right; `null_position`, `start_positions`, `end_positions` as `[windows]`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        names = [name for name in self.tokenizer.model_input_names if name in rows[0]]
        inputs = [{name: row[name] for name in names} for row in rows]
        batch = dict(self.tokenizer.pad(inputs, padding="longest", padding_side="right", return_tensors="pt"))
        longest = batch["input_ids"].shape[1]
        for name in ("char_start", "char_end"):
            batch[name] = torch.tensor([row[name] + [OUTSIDE] * (longest - len(row[name])) for row in rows])
        for name in ("null_position", "start_positions", "end_positions"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows])
        return batch
