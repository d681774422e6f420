"""Texts and what is to be written for them (summaries, translations): found, read, turned into batches.

Canonical columns: `source`, `target` (what is learned), `references` (all that a good answer may be, `target`
first) and `row`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlp_finetune.data import ROW, texts
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

IGNORED = -100
_SOURCES = ("source", "src", "document", "article", "dialogue", "dialog", "text", "content", "input", "body")
_TARGETS = ("target", "tgt", "summary", "highlights", "abstract", "headline", "title", "output", "translation")


@dataclass(frozen=True)
class Columns:
    """The data's column for the source, for the target, and those for references that the user named."""

    source: str
    target: str
    references: list[str]


def find(
    data: Dataset, *, source: str | None, target: str | None, references: Sequence[str] | None
) -> tuple[Columns, str]:
    """The columns asked for, else those found by usual names, and one line about them.

    Fields of an object are columns too: `translation.en`. Raises `InputError` that lists the columns.
    """
    data = flat(data)
    for option, name in (("source", source), ("target", target)):
        if name is not None and name not in data.column_names:
            raise InputError(f"task.{option}: no column {name!r}. {texts.describe_columns(data)}")
    languages = [name for name in data.column_names if name.startswith("translation.")]
    if len(languages) >= 2 and (source is None or target is None):
        raise InputError(
            f"Which language is to be written? Set task.source={languages[0]} task.target={languages[1]}, or the "
            f"other way round. {texts.describe_columns(data)}"
        )
    found_source = source or _by_name(data, _SOURCES, taken=target)
    found_target = target or _by_name(data, _TARGETS, taken=found_source)
    if found_source is None or found_target is None:
        missing = "source" if found_source is None else "target"
        raise InputError(
            f"No {missing} column found by name. {texts.describe_columns(data)} Set task.{missing}=COLUMN."
        )
    if found_source == found_target:
        raise InputError(f"task.target: column {found_target!r} is the source already.")
    line = f"source: {found_source}; target: {found_target}"
    return Columns(found_source, found_target, list(references or [])), line


def flat(data: Dataset) -> Dataset:
    """The data with the fields of objects as columns of their own, `translation.en`."""
    has_objects = any(isinstance(feature, dict) or _is_translation(feature) for feature in data.features.values())
    return data.flatten() if has_objects else data


def _is_translation(feature: Any) -> bool:
    return type(feature).__name__ == "Translation"


def _by_name(data: Dataset, names: Sequence[str], *, taken: str | None) -> str | None:
    by_name = {name.strip().lower(): name for name in data.column_names if name not in (taken, ROW)}
    return next((by_name[name] for name in names if name in by_name), None)


def reference_columns(data: Dataset, columns: Columns) -> list[str]:
    """Columns of a split that hold its targets; none where it has no targets.

    Those that the user named, or the target's own, or numbered ones (`summary1`, `summary2`, `summary_3`).
    """
    there = flat(data).column_names
    if columns.references and all(name in there for name in columns.references):
        return columns.references
    if columns.target in there:
        return [columns.target]
    numbered = {name: re.fullmatch(rf"{re.escape(columns.target)}_?(\d+)", name) for name in there}
    found = [(int(match[1]), name) for name, match in numbered.items() if match]
    return [name for _, name in sorted(found)]


def read(data: Dataset, columns: Columns, split: str, *, labelled: bool) -> dict[str, list[Any]]:
    """Canonical columns of a split as lists; without `labelled` the source alone.

    A cell of a target column may be a list, which is several references. Raises `InputError` for what is
    missing or empty, with split, column and row.
    """
    data = flat(data)
    raw = texts.read(data, [columns.source], split)
    found = {ROW: raw[ROW], "source": raw["text"]}
    _refuse_blank(found["source"], raw[ROW], columns.source, split)
    if not labelled:
        return found
    names = reference_columns(data, columns)
    if not names:
        raise InputError(f"{split}: no target column {columns.target!r}. {texts.describe_columns(data)}")
    cells = [data[name] for name in names]
    found["references"] = [_references(row, split, names) for row in zip(*cells, strict=True)]
    _refuse_blank(["".join(one) for one in found["references"]], raw[ROW], names[0], split)
    found["target"] = [one[0] for one in found["references"]]
    return found


def _references(cells: Sequence[Any], split: str, names: Sequence[str]) -> list[str]:
    flat_cells = [part for cell in cells for part in (cell if isinstance(cell, list) else [cell])]
    for part in flat_cells:
        if isinstance(part, Mapping):
            raise InputError(f"{split}: column {names[0]!r} holds objects, not texts.")
    return [str(part) for part in flat_cells if not texts.is_missing(part) and str(part).strip()]


def _refuse_blank(values: Sequence[str], rows: Sequence[int], column: str, split: str) -> None:
    bad = [row for row, value in zip(rows, values, strict=True) if not value.strip()]
    if bad:
        raise InputError(
            f"{split}: column {column!r} is empty in {len(bad)} of {len(rows)} rows (first: row {bad[0]}). "
            "Fill or remove them."
        )


def source_lengths(sources: Sequence[str], tokenizer: Any) -> list[int]:
    """Tokens of each source, special tokens included, before anything is cut."""
    return texts.token_lengths({"text": list(sources)}, tokenizer)


def encode(
    rows: Mapping[str, list[Any]],
    tokenizer: Any,
    *,
    prefix: str,
    max_length: int,
    max_target_length: int,
    on_long: texts.OnLong,
) -> dict[str, list[Any]]:
    """Tokenize a batch of canonical rows: `input_ids`, `length`, `source`, and with targets `labels`, `target_length`.

    `length` is that of the longer of both, `target_length` that of the whole target. A target that is cut
    keeps its last token, which ends it. Raises `InputError` where `on_long` is `error` and a row is too long.
    """
    sources = {ROW: rows[ROW], "text": [prefix + text for text in rows["source"]]}
    encoded = texts.encode(sources, tokenizer, max_length=max_length, on_long=on_long)
    columns = {name: encoded[name] for name in ("input_ids", "length", "source")}
    if "target" not in rows:
        return columns
    whole = [_ended(ids, tokenizer) for ids in tokenizer(text_target=list(rows["target"]), verbose=False)["input_ids"]]
    if on_long == "error":
        _refuse_long_targets(whole, rows[ROW], max_target_length)
    cut = [ids if len(ids) <= max_target_length else [*ids[: max_target_length - 1], ids[-1]] for ids in whole]
    columns["labels"], columns["target_length"] = cut, [len(ids) for ids in whole]
    columns["length"] = [max(length, len(ids)) for length, ids in zip(columns["length"], cut, strict=True)]
    return columns


def end_id(tokenizer: Any) -> int | None:
    """The token that ends a text; a BERT's separator where there is no such thing."""
    found = tokenizer.eos_token_id
    return tokenizer.sep_token_id if found is None else found  # type: ignore[no-any-return]


def _ended(ids: list[int], tokenizer: Any) -> list[int]:
    end = end_id(tokenizer)
    return ids if end is None or ids[-1:] == [end] else [*ids, end]


def _refuse_long_targets(targets: Sequence[list[int]], rows: Sequence[int], longest: int) -> None:
    for row, ids in zip(rows, targets, strict=True):
        if len(ids) > longest:
            raise InputError(
                f"row {row}: its target has {len(ids)} tokens, more than task.max_target_length={longest}. "
                "Raise it, or set task.on_long=truncate."
            )


class SourceTargetCollator:
    """Pads encoded rows to the longest of the batch, on the right.

    Gives `input_ids` and `attention_mask` `[rows, longest]`, and with targets `labels` (-100 where padded) and
    `decoder_input_ids`, the labels moved to the right behind `start`, both `[rows, longest target]`. Left
    to itself BART would take its own input, moved, for what the decoder reads.
    """

    def __init__(self, tokenizer: Any, *, start: int) -> None:
        self.tokenizer = tokenizer
        self.start = start

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        inputs = [{"input_ids": row["input_ids"]} for row in rows]
        batch = dict(self.tokenizer.pad(inputs, padding="longest", padding_side="right", return_tensors="pt"))
        if "labels" in rows[0]:
            longest = max(len(row["labels"]) for row in rows)
            labels = [list(row["labels"]) + [IGNORED] * (longest - len(row["labels"])) for row in rows]
            batch["labels"] = torch.tensor(labels, dtype=torch.long)
            moved = torch.full_like(batch["labels"], self.start)
            moved[:, 1:] = batch["labels"][:, :-1]
            batch["decoder_input_ids"] = moved.masked_fill(moved == IGNORED, self.tokenizer.pad_token_id)
        return batch
