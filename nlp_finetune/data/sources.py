"""Where rows come from: files, folders, demo data and the Hub, all read into the same form."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nlp_finetune.data import delimited, demo, files, folders, hub, image_folders, paths, rows
from nlp_finetune.data.delimited import TextFormat, TextRows
from nlp_finetune.data.images import is_image_name
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Loaded:
    """Raw rows by split, each with the column `row`, and where they came from.

    `splits` has `train` and whichever of `validation` and `test` exist; `origins` names the file or
    data set of each; `notes` are one-line decisions for the user; `fingerprint` changes with the
    content and with how it was read; `about` is what the Hub says of a data set (`data.hub.HubData`).
    """

    splits: dict[str, Dataset]
    origins: dict[str, str]
    notes: list[str]
    fingerprint: str
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Part:
    rows: Dataset
    origin: str
    notes: list[str]


@dataclass(frozen=True)
class _Source:
    """Something that may hold several splits, each read when it is asked for."""

    name: str
    splits: list[str]
    find: Callable[[str], str | None]
    """From what the user calls a split to the source's own name for it, None if it has no such split."""
    read: Callable[[str], _Part]
    takes_test: bool
    """Whether a test split is taken without being asked for."""
    notes: list[str]
    about: dict[str, Any] = field(default_factory=dict)


def load(
    *,
    source: str | None,
    train: str | None,
    validation: str | None,
    test: str | None,
    revision: str | None = None,
    config: str | None = None,
    columns: Sequence[str] | None = None,
    delimiter: str | None = None,
    quoting: str | None = None,
    encoding: str | None = None,
    text_rows: TextRows = "line",
    images: bool = False,
) -> Loaded:
    """Read the splits of a source, or the files named for them.

    `source` is a file or glob, a folder, `demo:NAME` or a Hub id; a split argument is a file if it is
    one or is written like one, else the name of a split of the source. None, and `validation` for the
    validation split, take what the source has; the test split of a Hub data set only on request. The
    test split never stands in for a missing validation split. `columns`, `delimiter`, `quoting` and
    `encoding` describe text files, `text_rows` says what is one row of plain text; with `images` rows are
    about images, and a folder of image files is a source. Raises `InputError` for everything that is wrong
    with any of it.
    """
    form = delimited.text_format(
        columns=columns, delimiter=delimiter, quoting=quoting, encoding=encoding, text_rows=text_rows, images=images
    )
    opened = None if source is None else _open(source, form, revision=revision, config=config)
    if opened is None and (revision is not None or config is not None):
        raise InputError("data.revision and data.config describe a Hub data set, but data.source is not set.")
    wanted = {"train": train, "validation": validation, "test": test}
    explicit = {opened.find(value) for value in wanted.values() if value is not None} if opened else set()
    notes = list(opened.notes) if opened else []
    parts: dict[str, _Part] = {}
    for split, value in wanted.items():
        if value is not None and _is_file(value, opened):
            parts[split] = _read_files(value, form)
            continue
        name, remark = _choose(split, value, opened, explicit)
        notes += [remark] if remark else []
        if name is not None and opened is not None:
            parts[split] = opened.read(name)
    return Loaded(
        splits={split: part.rows for split, part in parts.items()},
        origins={split: part.origin for split, part in parts.items()},
        notes=list(dict.fromkeys([note for part in parts.values() for note in part.notes] + notes)),
        fingerprint=_fingerprint({split: part.rows for split, part in parts.items()}),
        about=opened.about if opened is not None else {},
    )


def read_file(
    path: str,
    *,
    columns: Sequence[str] | None = None,
    delimiter: str | None = None,
    quoting: str | None = None,
    encoding: str | None = None,
    text_rows: TextRows = "line",
    images: bool = False,
) -> tuple[Dataset, list[str]]:
    """Rows of one file, or of all files that a glob matches, and one-line notes on how they were read.

    With `images` the rows are about images: `path` may be one of them, or a folder of them.
    """
    form = delimited.text_format(
        columns=columns, delimiter=delimiter, quoting=quoting, encoding=encoding, text_rows=text_rows, images=images
    )
    part = _read_files(path, form)
    return part.rows, part.notes


def _read_files(path: str, form: TextFormat, names: Sequence[str] | None = None) -> _Part:
    of_images = _read_images(path) if form.images and names is None else None
    if of_images is not None:
        return of_images
    found = files.read(path, form) if names is None else files.read_all(names, form, name=path)
    data, notes = rows.from_table(found.table, path=path, fingerprint=found.digest)
    return _Part(data, path, found.notes + notes)


def _read_images(path: str) -> _Part | None:
    """Rows of one image, or of the images in a folder without a division into splits; None for anything else."""
    where = paths.expand(path)
    if os.path.isfile(where) and is_image_name(where):
        found = {"train": image_folders.Found(os.path.dirname(where) or ".", [os.path.basename(where)], None)}
    else:
        found = (image_folders.find(path) or {}) if os.path.isdir(where) else {}
    if len(found) > 1:
        raise InputError(f"{path} has {', '.join(found)}: give the folder of one of them.")
    return _image_part(found["train"], path) if found else None


def _image_part(found: image_folders.Found, origin: str) -> _Part:
    data, notes = rows.from_table(found.table(), path=origin, fingerprint=found.digest())
    return _Part(data, origin, notes)


def _is_file(value: str, opened: _Source | None) -> bool:
    """Whether a split argument is a file: written like one, or one and no split of the source."""
    if paths.written_like_file(value):
        return True
    return paths.exists(value) and (opened is None or opened.find(value) is None)


def _choose(
    split: str, value: str | None, opened: _Source | None, explicit: set[str | None]
) -> tuple[str | None, str | None]:
    """The source's name of the split to read, None if there is none, and what to say about that."""
    by_default = value is None or (split == "validation" and value == "validation")
    if opened is None:
        if split == "train":
            raise InputError(_no_training_data(value))
        if not by_default:
            raise InputError(
                f"data.{split}={value} is not a file, and no data.source is set that could have such a split."
            )
        return None, f"no {split} split: data.{split} is not set"
    name = opened.find(value or split)
    has = f"{opened.name} has {', '.join(opened.splits)}"
    if name is None:
        if split == "train" or not by_default:
            raise InputError(
                f"data.{split}={value or split}: there is no such split ({has}), and no file of that name."
            )
        return None, f"no {split} split: {has}"
    if value is None and split != "train" and name in explicit:
        return None, f"no {split} split: {opened.name}'s '{name}' is used otherwise"
    if value is None and split == "test" and not opened.takes_test:
        return None, f"no test split: {opened.name} has one, but data.test is not set"
    return name, None


def _no_training_data(value: str | None) -> str:
    if value in (None, "train"):
        return (
            "There are no training data: set data.source to a file, a folder, demo:NAME or a Hub data set, "
            "or data.train to a file."
        )
    similar = paths.similar_names(value or "")
    hint = f" Did you mean {' or '.join(similar)}?" if similar else ""
    return f"data.train={value} is not a file, and there is no data.source to have a split of that name.{hint}"


def _open(source: str, form: TextFormat, *, revision: str | None, config: str | None) -> _Source:
    is_demo = source.startswith(demo.PREFIX)
    if not is_demo and not paths.looks_like_path(source):
        return _open_hub(source, form, revision=revision, config=config)
    if revision is not None or config is not None:
        setting = "data.revision" if revision is not None else "data.config"
        raise InputError(f"{setting} describes a Hub data set, but data.source={source} is not one.")
    if is_demo and source.removeprefix(demo.PREFIX) in demo.COMPUTED:
        return _open_computed(source)
    if is_demo:
        opened = _open_folder(demo.folder(source), form, name=source)
        # Where the package is installed says nothing to anyone.
        return replace(opened, read=lambda split: replace(opened.read(split), origin=f"{source}, split {split}"))
    if os.path.isdir(paths.expand(source)):
        return _open_folder(source, form, name=source)
    return _Source(
        name=source,
        splits=["train"],
        find=lambda value: "train" if value == "train" else None,
        read=lambda _: _read_files(source, form),
        takes_test=True,
        notes=[],
    )


def _open_computed(source: str) -> _Source:
    tables = demo.COMPUTED[source.removeprefix(demo.PREFIX)]()

    def read(split: str) -> _Part:
        origin = f"{source}, split {split}"
        digest = hashlib.sha256(repr((source, tables[split].to_pylist())).encode()).hexdigest()[:32]
        return _Part(rows.from_table(tables[split], path=origin, fingerprint=digest)[0], origin, [])

    def find(value: str) -> str | None:
        split = folders.split_of(value)
        return split if split in tables else None

    return _Source(name=source, splits=list(tables), find=find, read=read, takes_test=True, notes=[])


def _open_image_folder(folder: str, found: Mapping[str, image_folders.Found]) -> _Source:
    def find(value: str) -> str | None:
        split = folders.split_of(value)
        return split if split in found else None

    def read(split: str) -> _Part:
        return _image_part(found[split], folder if len(found) == 1 else found[split].folder)

    return _Source(name=folder, splits=list(found), find=find, read=read, takes_test=True, notes=[])


def _open_folder(folder: str, form: TextFormat, *, name: str) -> _Source:
    of_images = image_folders.find(folder) if form.images else None
    if of_images is not None:
        return _open_image_folder(folder, of_images)
    found = folders.find(folder)

    def find(value: str) -> str | None:
        split = folders.split_of(value)
        return split if split in found else None

    def read(split: str) -> _Part:
        paths_found = found[split]
        if len(paths_found) == 1:
            return _read_files(paths_found[0], form)
        return _read_files(os.path.join(folder, split), form, paths_found)

    return _Source(name=name, splits=list(found), find=find, read=read, takes_test=True, notes=[])


def _open_hub(source: str, form: TextFormat, *, revision: str | None, config: str | None) -> _Source:
    if form.given():
        raise InputError(f"{', '.join(form.given())}: only for text files, but data.source={source} is a Hub data set.")
    data = hub.load(source, config=config, revision=revision)

    def find(value: str) -> str | None:
        # A slice or a sum of splits (train[:90%], train+validation) is as good as its parts.
        parts = [part.partition("[")[0] for part in value.split("+")]
        return value if all(part in data.splits for part in parts) else None

    def read(split: str) -> _Part:
        origin = f"{source}, split {split}"
        numbered, notes = rows.number(data.read(split), where=origin)
        return _Part(numbered, origin, notes)

    return _Source(
        name=source, splits=data.splits, find=find, read=read, takes_test=False, notes=data.notes, about=data.about
    )


def _fingerprint(splits: dict[str, Dataset]) -> str:
    parts = [f"{split} {data._fingerprint}" for split, data in sorted(splits.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
