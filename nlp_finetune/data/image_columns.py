"""The column that holds images: paths of files, their content, or the `Image` feature of datasets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nlp_finetune.data import FOLDER, ROW
from nlp_finetune.data.images import is_image_name
from nlp_finetune.data.texts import describe_columns, is_missing
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

_NAMES = (
    "image", "img", "picture", "photo", "file", "path", "file_name", "filename", "filepath", "file_path",
    "image_path", "image_file", "image_name",
)  # fmt: skip


def find(data: Dataset, asked: str | None, *, taken: Sequence[str]) -> str:
    """Name of the column: the one asked for, else one of images by its type, by a usual name, or by its values.

    Raises `InputError` listing the columns.
    """
    if asked is not None:
        if asked not in data.column_names:
            raise InputError(f"task.image: no column {asked!r}. {describe_columns(data)}")
        return asked
    free = [name for name in data.column_names if name not in (ROW, FOLDER, *taken)]
    typed = [name for name in free if _kind(data, name) in ("image", "bytes")]
    if len(typed) == 1:
        return str(typed[0])
    by_name = {name.strip().lower(): name for name in free if _kind(data, name) is not None}
    for name in _NAMES:
        if name in by_name:
            return str(by_name[name])
    named = [name for name in free if _kind(data, name) == "path" and is_image_name(str(data[0][name]))]
    if len(named) == 1:
        return str(named[0])
    raise InputError(f"No column of images found by name. {describe_columns(data)} Set task.image=COLUMN.")


def _kind(data: Dataset, name: str) -> str | None:
    """`image` (struct of bytes and path), `bytes` or `path`; None for a column that can't hold images."""
    import datasets

    feature = data.features[name]
    if isinstance(feature, datasets.Image):
        return "image"
    if isinstance(feature, dict) and {"bytes", "path"} <= feature.keys():
        return "image"
    dtype = getattr(feature, "dtype", None)
    return {"binary": "bytes", "large_binary": "bytes", "string": "path", "large_string": "path"}.get(str(dtype))


def read(data: Dataset, column: str, split: str) -> Dataset:
    """The column as `image`, a mapping of `bytes` and `path`, with `row`.

    Relative paths start from the folder of the file that names them. Raises `InputError` for a column that
    is not there, holds no images, or is empty in a row.
    """
    import datasets

    if column not in data.column_names:
        raise InputError(f"{split}: no column {column!r} of images. {describe_columns(data)}")
    kind = _kind(data, column)
    if kind is None:
        raise InputError(f"{split}: column {column!r} holds no images. {describe_columns(data)} Set task.image.")
    if kind == "image":
        chosen = data.select_columns([column, ROW])
        chosen = chosen if column == "image" else chosen.rename_column(column, "image")
        if isinstance(chosen.features["image"], datasets.Image):
            chosen = chosen.cast_column("image", datasets.Image(decode=False))
        return chosen.with_format(None)
    rows, cells = list(data[ROW]), data[column]
    if kind == "path":
        folders = data[FOLDER] if FOLDER in data.column_names else [""] * len(rows)
        images = [{"bytes": None, "path": _path(*x, split)} for x in zip(cells, folders, rows, strict=True)]
    else:
        images = [{"bytes": cell, "path": None} for cell in cells]
    features = datasets.Features({"image": datasets.Image(decode=False), ROW: datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": images, ROW: rows}, features=features)


def _path(cell: Any, folder: str, row: int, split: str) -> str:
    if is_missing(cell) or not str(cell).strip():
        raise InputError(f"{split}: row {row} names no image. Fill or remove it.")
    path = os.path.expanduser(str(cell).strip())
    if path.lower().startswith(("http://", "https://")):
        raise InputError(f"{split}: row {row} is a web address, {path}. Download the images and give their paths.")
    return os.path.join(folder, path)
