"""Prediction files: what is read from the user and written back."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.data import FOLDER, ROW
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

    from nlp_finetune.tasks.base import BaseTask

_KINDS = (".csv", ".tsv", ".jsonl", ".json")


def check_output(path: Path) -> None:
    """Refuse a file that could not be written, before anything is computed."""
    if path.suffix not in _KINDS:
        raise InputError(f"--output {path}: the name must end in {', '.join(_KINDS)}.")
    if not path.parent.is_dir():
        raise InputError(f"--output {path}: the folder {path.parent} does not exist.")
    if path.is_dir():
        raise InputError(f"--output {path}: this is a folder.")


def from_texts(task: BaseTask, texts: list[str]) -> Dataset:
    """One data row from texts of the command line."""
    from datasets import Dataset

    return Dataset.from_list([{**task.from_texts(texts), ROW: 1}])


def from_images(task: BaseTask, paths: list[str]) -> Dataset:
    """Data rows from image files of the command line."""
    from datasets import Dataset

    rows = list(range(1, len(paths) + 1))
    return Dataset.from_dict({task.input_columns()[0]: paths, FOLDER: [os.getcwd()] * len(paths), ROW: rows})


def without_bad_rows(task: BaseTask, data: Dataset) -> tuple[Dataset, list[tuple[int, str]]]:
    """Rows that can be predicted, and `(row number, problem)` of those that cannot."""
    from nlp_finetune.data.texts import is_missing

    bad: dict[int, str] = {}
    columns = [column for column in task.input_columns() if column in data.column_names]
    for position, values in enumerate(zip(*(data[column][:] for column in columns), strict=True)):
        for column, value in zip(columns, values, strict=True):
            if is_missing(value) or (isinstance(value, str) and not value.strip()):
                bad[position] = f"column {column!r} is empty"
        if position not in bad and all(isinstance(value, str) for value in values):
            problem = task.input_problem(values)
            if problem is not None:
                bad[position] = problem
    filled = [position for position in range(len(data)) if position not in bad]
    bad |= {filled[at]: problem for at, problem in task.unusable(data.select(filled)).items()} if filled else {}
    rows = data[ROW]
    named = [(rows[position], bad[position]) for position in sorted(bad)]
    if len(bad) == len(data):
        raise InputError(f"no row can be predicted: row {named[0][0]}: {named[0][1]}." if named else "no rows.")
    return data.select([i for i in range(len(data)) if i not in bad]), named


def write(path: Path, data: Dataset, answers: list[dict[str, Any]]) -> None:
    """Write the user's columns with the predictions beside them, in the order of the rows."""
    columns = [name for name in data.column_names if name not in (ROW, FOLDER) and not _holds_bytes(data, name)]
    records = []
    for row, answer in zip(data.select_columns([ROW, *columns]), answers, strict=True):
        own = {ROW: row[ROW], **{name: row[name] for name in columns}}
        records.append({**own, **{(f"predicted_{k}" if k in own else k): v for k, v in answer.items()}})
    with open(path, "w", encoding="utf-8", newline="") as stream:
        if path.suffix == ".jsonl":
            stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        elif path.suffix == ".json":
            json.dump(records, stream, ensure_ascii=False, indent=2)
        else:
            flat = [_flat(record) for record in records]
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(stream, fieldnames=list(flat[0]), delimiter=delimiter, lineterminator="\n")
            writer.writeheader()
            writer.writerows(flat)


def _holds_bytes(data: Dataset, name: str) -> bool:
    """Whether a column holds the content of files, which no table of predictions repeats."""
    return "binary" in str(data.features.arrow_schema.field(name).type)


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Cells of a table: one column a score, lists joined by |, lists of objects as JSON."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{name.removesuffix('s')}_{key}": part for key, part in value.items()}
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            flat[name] = json.dumps(value, ensure_ascii=False)
        elif isinstance(value, list):
            flat[name] = "|".join(map(str, value))
        else:
            flat[name] = value
    return flat
