"""One data file, or several that a glob matches, as a table of raw columns."""

from __future__ import annotations

import glob
import gzip
import hashlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from nlp_finetune.data import FOLDER, conll, delimited, encodings, json_rows, paths
from nlp_finetune.data.delimited import TextFormat
from nlp_finetune.errors import InputError

_SNIFFED_BYTES = 100_000


@dataclass(frozen=True)
class Table:
    """Raw columns, one-line notes on how they were read, and a hash of content and format."""

    table: pa.Table
    notes: list[str]
    digest: str


def read(path: str, form: TextFormat) -> Table:
    """Read a file, or all files that a glob matches, in sorted order, as one table.

    Raises `InputError` for whatever is wrong with the file, naming line or row.
    """
    if not paths.is_pattern(path):
        return _read_one(path, form)
    matches = sorted(glob.glob(paths.expand(path), recursive=True))
    files = [match for match in matches if os.path.isfile(match)]
    if not files:
        raise InputError(f"No file matches {path} (looked from {os.getcwd()}).")
    return read_all(files, form, name=path)


def read_all(files: Sequence[str], form: TextFormat, *, name: str) -> Table:
    """Read several files with the same columns as one table, in the order given."""
    tables = [_read_one(file, form) for file in files]
    if len(tables) == 1:
        return tables[0]
    joined = _concatenate({file: part.table for file, part in zip(files, tables, strict=True)})
    order = ", ".join(os.path.basename(file) for file in files[:4]) + (", ..." if len(files) > 4 else "")
    notes = [f"{name}: {len(files)} files, {joined.num_rows:,} rows, numbered through in this order: {order}"]
    notes += [note for part in tables for note in part.notes]
    return Table(joined, notes, _digest("".join(part.digest for part in tables).encode()))


def _read_one(path: str, form: TextFormat) -> Table:
    suffix = paths.data_suffix(path)
    raw = _bytes(path)
    if suffix is None and conll.looks_like(raw[:_SNIFFED_BYTES].decode("utf-8", errors="replace")):
        suffix = paths.COLUMN_SUFFIXES[0]  # the usual names of such files end in .train or .testa
    if suffix is None:
        raise InputError(
            f"{path}: the kind of file cannot be told from its name. "
            f"Name it with one of {', '.join('.' + s for s in paths.SUFFIXES)} (or that and .gz)."
        )
    if not raw:
        raise InputError(f"{path} is empty.")
    if suffix not in paths.TEXT_SUFFIXES:
        of_text = [name for name in form.given() if name != "data.encoding" or suffix in paths.TABLE_SUFFIXES]
        if suffix in paths.COLUMN_SUFFIXES:
            of_text = [name for name in of_text if name == "data.quoting"]
        if of_text:
            raise InputError(
                f"{path}: {', '.join(of_text)} describe{'s' if len(of_text) == 1 else ''} delimited text, "
                f"but this is a {suffix} file. Leave {'it' if len(of_text) == 1 else 'them'} out."
            )
    digest = _digest(raw, f"{suffix} {form}".encode())
    if suffix in paths.TABLE_SUFFIXES:
        table = _read_arrow(raw, path=path, suffix=suffix)
        notes: list[str] = []
    else:
        table, notes = _read_text(raw, path=path, suffix=suffix, form=form)
    if not table.num_rows or not table.num_columns:
        raise InputError(f"{path} has no data rows.")
    if form.images:
        folder = os.path.abspath(os.path.dirname(paths.expand(path)))
        table = table.append_column(FOLDER, pa.array([folder] * table.num_rows))
    return Table(table, notes, digest)


def _bytes(path: str) -> bytes:
    if not paths.exists(path):
        raise paths.missing(path)
    if os.path.isdir(paths.expand(path)):
        raise InputError(
            f"{path} is a folder, not a file. "
            f"A folder with train, validation and test files is a source: data.source={path}"
        )
    try:
        raw = Path(paths.expand(path)).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if not path.lower().endswith(".gz"):
        return raw
    try:
        return gzip.decompress(raw) if raw else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a whole gzip file: {error}.") from error


def _read_text(raw: bytes, *, path: str, suffix: str, form: TextFormat) -> tuple[pa.Table, list[str]]:
    text, notes = encodings.decode(raw, path=path, encoding=form.encoding)
    if not text.strip():
        raise InputError(f"{path} is empty.")
    if "\n" not in text:
        text = text.replace("\r", "\n")  # the line ends of old Macs
    if suffix in paths.COLUMN_SUFFIXES or (form.quoting == "auto" and conll.looks_like(text)):
        table, decided = conll.parse(text, path=path, columns=form.columns, delimiter=form.delimiter)
        return table, notes + decided
    if suffix in paths.JSON_SUFFIXES:
        return json_rows.parse(text, path=path, suffix=suffix), notes
    one_column = form.columns is None or len(form.columns) == 1
    if suffix == "txt" and form.delimiter is None and one_column:
        name = form.columns[0] if form.columns else "text"
        columns, decided = delimited.parse_text(text, path=path, name=name, rows=form.text_rows)
    else:
        columns, decided = delimited.parse_table(text, path=path, suffix=suffix, form=form)
    table = pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()})
    return table, notes + decided


def _read_arrow(raw: bytes, *, path: str, suffix: str) -> pa.Table:
    import pyarrow.parquet

    buffer = pa.BufferReader(raw)
    try:
        if suffix == "parquet":
            table = pyarrow.parquet.read_table(buffer)
        elif raw.startswith(b"ARROW1"):
            table = pa.ipc.open_file(buffer).read_all()
        else:
            table = pa.ipc.open_stream(buffer).read_all()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a whole {suffix} file: {str(error).splitlines()[0]}") from error
    duplicates = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if duplicates:
        raise InputError(f"{path} has several columns called {', '.join(duplicates)}.")
    # The row labels of a pandas frame, not data.
    return table.drop_columns([name for name in table.column_names if name.startswith("__index_level_")])


def _concatenate(tables: dict[str, pa.Table]) -> pa.Table:
    first, *others = tables
    names = tables[first].column_names
    for file in others:
        if set(tables[file].column_names) != set(names):
            raise InputError(
                f"{first} has the columns {', '.join(names)}, "
                f"but {file} has {', '.join(tables[file].column_names)}. "
                "Files that are read as one must have the same columns."
            )
        for name in names:
            types = [tables[file].schema.field(name).type for file in (first, file)]
            try:
                pa.unify_schemas([pa.schema({name: t}) for t in types], promote_options="permissive")
            except pa.ArrowException:
                raise InputError(
                    f"Column '{name}' is {types[0]} in {first} and {types[1]} in {file}. "
                    "Give it the same type in all files."
                ) from None
    aligned = [table.select(names) for table in tables.values()]
    return pa.concat_tables(aligned, promote_options="permissive")


def _digest(*parts: bytes) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.hexdigest()[:32]
