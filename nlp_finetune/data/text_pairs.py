"""Pairs of texts that are alike: with a score, or all of them alike, with or without a text that is not.

Canonical rows: `text`, `text_pair` (absent where vectors of single texts are wanted), `negative` for
triplets, `score` for scored pairs, and `row`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nlp_finetune.data import ROW, texts
from nlp_finetune.data.several_texts import by_row, columns_by_row, padded
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

Kind = Literal["scored", "positive"]
OnLong = Literal["truncate", "error"]
SIDES = ("text", "text_pair", "negative")
TEXTS_A_ROW = "texts_a_row"
"""Number of texts of each row of a batch, the same for all."""
TEXT_IDS = "text_ids"
"""Numbers by which equal texts of a batch are recognised, `[rows, texts]`."""
_PAIRS = (("anchor", "positive"), ("query", "positive"), ("query", "answer"), ("question", "answer"))
_NEGATIVES = ("negative", "hard_negative")
_SCORES = ("score", "similarity_score", "similarity", "relatedness_score", "relatedness", "label", "labels")


@dataclass(frozen=True)
class Columns:
    """Names of the columns: two of texts, and one of scores or of texts unlike the first, if any."""

    pair: list[str]
    negative: str | None
    score: str | None

    @property
    def kind(self) -> Kind:
        """What the pairs teach: how alike they are, or that they belong together."""
        return "scored" if self.score is not None else "positive"

    @property
    def texts(self) -> list[str]:
        """Columns of texts."""
        return [*self.pair, *([self.negative] if self.negative is not None else [])]


def find(data: Dataset, *, text: Sequence[str] | None, negative: str | None, label: str | None) -> Columns:
    """The columns asked for, else those with usual names; raises `InputError` listing the columns."""
    for key, name in (("negative", negative), ("label", label)):
        if name is not None and name not in data.column_names:
            raise InputError(f"task.{key}: no column {name!r}. {texts.describe_columns(data)}")
    by_name = {name.strip().lower(): name for name in data.column_names}
    if text is None:
        usual = (pair for pair in _PAIRS if set(pair) <= by_name.keys())
        text = [by_name[name] for name in next(usual, ())] or None
    pair = texts.find(data, text, taken=[name for name in (negative, label) if name is not None])
    if len(pair) != 2:
        raise InputError(
            f"Two columns of texts are needed. {texts.describe_columns(data)} Set task.text=[COLUMN, COLUMN]."
        )
    free = {lower: name for lower, name in by_name.items() if name not in pair}
    if label is None and negative is None:
        negative = next((free[name] for name in _NEGATIVES if name in free), None)
    if label is None and negative is None:
        label = next((free[name] for name in _SCORES if name in free), None)
    if label is not None and negative is not None:
        raise InputError(f"task.negative {negative} and task.label {label}: pairs with scores have no negatives.")
    return Columns(pair, negative, label)


def read(data: Dataset, columns: Columns, split: str, *, labelled: bool) -> dict[str, list[Any]]:
    """Canonical columns; without `labelled` the first text alone where the second is not there.

    Raises `InputError` where a column is absent, or a text or score is missing.
    """
    first, second = columns.pair
    alone = not labelled and second not in data.column_names
    if alone and first not in data.column_names:
        found = texts.find(data, None, taken=None)
        return texts.read(data, found[:2], split)
    rows = texts.read(data, [first] if alone else columns.pair, split)
    if labelled and columns.negative is not None:
        rows["negative"] = texts.read(data, [columns.negative], split)["text"]
    if labelled and columns.score is not None:
        rows["score"] = _scores(data, columns.score, split)
    return rows


def has_scores(data: Dataset, column: str) -> bool:
    """Whether any row of a split has a score."""
    return column in data.column_names and not all(map(texts.is_missing, data[column][:]))


def _scores(data: Dataset, column: str, split: str) -> list[float]:
    if column not in data.column_names:
        raise InputError(f"{split}: no column {column!r} of scores. {texts.describe_columns(data)}")
    scores = []
    for row, cell in zip(data[ROW][:], data[column][:], strict=True):
        try:
            score = float(cell)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise InputError(
                f"{split}: row {row}, column {column!r} holds {cell!r}, which is no score. Embeddings learn from pairs "
                "with numbers, or from pairs that all belong together: then remove the column, and the rows that don't."
            )
        scores.append(score)
    return scores


def score_range(scores: Sequence[float], asked: Sequence[float] | None, rows: Sequence[int]) -> tuple[float, float]:
    """The scores that mean cosine 0 and cosine 1: asked for, 0 to 1 where all lie there, else the extremes.

    Scores from -1 to 1 with some below 0 are taken for cosines: their range is 0 to 1 too. Raises
    `InputError` naming a row whose score is outside the range asked for.
    """
    low, high = min(scores), max(scores)
    if asked is not None:
        if asked[0] >= asked[1]:
            raise InputError(f"task.score_range=[{asked[0]:g}, {asked[1]:g}]: the smaller score comes first.")
        outside = [i for i, score in enumerate(scores) if not asked[0] <= score <= asked[1]]
        if outside:
            raise InputError(
                f"train: row {rows[outside[0]]} has the score {scores[outside[0]]:g}, outside "
                f"task.score_range=[{asked[0]:g}, {asked[1]:g}]."
            )
        return asked[0], asked[1]
    if low == high:
        raise InputError(f"train: every score is {low:g}: there is nothing to learn.")
    return (0.0, 1.0) if low >= -1 and high <= 1 else (low, high)


def encode(rows: Mapping[str, list[Any]], tokenizer: Any, *, max_length: int, on_long: OnLong) -> dict[str, list[Any]]:
    """Tokenize every text of canonical rows on its own, longer ones cut.

    Each input of the tokenizer becomes a list of one list a text; `length` counts the tokens of all
    texts of a row. Raises `InputError` where a text is too long and `on_long` is `error`.
    """
    if on_long == "error":
        for row, length in zip(rows[ROW], token_lengths(rows, tokenizer), strict=True):
            if length > max_length:
                raise InputError(
                    f"row {row} has a text of {length} tokens, more than task.max_length={max_length}. "
                    "Raise task.max_length, or set task.on_long=truncate."
                )
    flat, counts = _flat(rows)
    columns = columns_by_row(tokenizer(flat, truncation=True, max_length=max_length), counts)
    columns[TEXT_IDS] = by_row([_number(text) for text in flat], counts)
    return columns


def token_lengths(rows: Mapping[str, list[Any]], tokenizer: Any) -> list[int]:
    """Tokens of each row's longest text, special tokens included, before anything is cut."""
    flat, counts = _flat(rows)
    lengths = [len(ids) for ids in tokenizer(flat, truncation=False, verbose=False)["input_ids"]]
    return [max(row) for row in by_row(lengths, counts)]


def _flat(rows: Mapping[str, list[Any]]) -> tuple[list[str], list[int]]:
    sides = [rows[side] for side in SIDES if side in rows]
    return [text for row in zip(*sides, strict=True) for text in row], [len(sides)] * len(sides[0])


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


class TextsCollator:
    """Pads all texts of all rows of a batch to the longest of them.

    Gives the tokenizer's inputs as `[rows x texts, longest]`, `texts_a_row`, `text_ids` `[rows, texts]`,
    and where there are scores `labels` `[rows]`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        batch: dict[str, torch.Tensor | int] = {**padded(rows, self.tokenizer), TEXTS_A_ROW: len(rows[0]["input_ids"])}
        batch[TEXT_IDS] = torch.tensor([row[TEXT_IDS] for row in rows])
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows], dtype=torch.float32)
        return batch
