"""CSV, TSV and plain text: every cell a string, exactly as it is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nlp_finetune.data import headers, records
from nlp_finetune.errors import InputError

QUOTING = ("auto", "none", "minimal")
TextRows = Literal["line", "paragraph", "file", "auto"]
"""One row of a `.txt` file; `auto` takes paragraphs where blank lines divide them, else lines."""
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")


@dataclass(frozen=True)
class TextFormat:
    """How the user says a delimited file is written; None and `auto` leave it to be found out.

    `text_rows` and `images` are what reads the file's decision, not the user's: what it takes for one row of
    plain text, and whether rows are about images, so that relative paths need the file's folder.
    """

    columns: tuple[str, ...] | None = None
    delimiter: str | None = None
    quoting: str = "auto"
    encoding: str | None = None
    text_rows: TextRows = "line"
    images: bool = False

    def given(self) -> list[str]:
        """The settings in force, as they stand in a recipe."""
        values = {
            "data.columns": self.columns,
            "data.delimiter": self.delimiter,
            "data.quoting": None if self.quoting == "auto" else self.quoting,
            "data.encoding": self.encoding,
        }
        return [name for name, value in values.items() if value is not None]


def text_format(
    *,
    columns: Sequence[str] | None = None,
    delimiter: str | None = None,
    quoting: str | None = None,
    encoding: str | None = None,
    text_rows: TextRows = "line",
    images: bool = False,
) -> TextFormat:
    """Check the four settings; `delimiter` is one character or a name (tab, comma, semicolon, pipe).

    Raises `InputError` naming the setting that makes no sense.
    """
    if quoting not in (None, *QUOTING):
        raise InputError(f"data.quoting={quoting}: expected one of {', '.join(QUOTING)}.")
    character = None
    if delimiter is not None:
        character = {**records.DELIMITERS, "\\t": "\t"}.get(delimiter, delimiter)
        if len(character) != 1 or character in '"\r\n':
            raise InputError(f"data.delimiter={delimiter}: expected one character, or {', '.join(records.DELIMITERS)}.")
    if columns is not None:
        names = [name.strip() for name in columns]
        if not names or not all(names) or len(set(names)) < len(names):
            raise InputError(
                f"data.columns=[{','.join(columns)}]: expected the names of all columns, each of them once."
            )
        columns = names
    return TextFormat(
        None if columns is None else tuple(columns), character, quoting or "auto", encoding, text_rows, images
    )


def parse_text(text: str, *, path: str, name: str, rows: TextRows) -> tuple[dict[str, list[str]], list[str]]:
    """One row per line, paragraph or file, in the column `name`, and a note on what was decided.

    Paragraphs are divided by blank lines and keep their line ends inside.
    """
    text = text.replace("\r\n", "\n").strip("\n")
    if rows == "file":
        return {name: [text]}, []
    parts = [part for part in _BLANK_LINES.split(text) if part.strip()] if rows != "line" else []
    if rows == "paragraph" or len(parts) > 1:
        return {name: parts}, [f"{path}: {len(parts):,} paragraphs, divided by blank lines, a row each"]
    return _parse_lines(text, path=path, name=name)


def _parse_lines(text: str, *, path: str, name: str) -> tuple[dict[str, list[str]], list[str]]:
    lines = text.split("\n")
    kept = [line for line in lines if line.strip()]
    blank = len(lines) - len(kept)
    return {name: kept}, [f"{path}: {blank:,} blank lines left out"] if blank else []


def parse_table(text: str, *, path: str, suffix: str, form: TextFormat) -> tuple[dict[str, list[str]], list[str]]:
    """Columns of a delimited text by name, and what was decided about its format.

    Raises `InputError` for rows with a wrong number of cells (file, lines and counts), for a first
    line that looks like data where `form.columns` does not name the columns, and for a file
    without data rows.
    """
    width = None if form.columns is None else len(form.columns)
    notes: list[str] = []
    delimiter = form.delimiter
    if delimiter is None:
        delimiter, notes = records.sniff_delimiter(text, suffix=suffix, width=width, path=path)
    found = records.split(text, delimiter=delimiter, quoting=form.quoting, width=width, path=path)
    rows = found.cells
    names = list(form.columns) if form.columns is not None else rows[0]
    first = 0 if form.columns is not None else 1
    if len(rows) == first:
        raise InputError(
            f"{path} has a header and no data rows. If that line is data, name the columns: data.columns=[text,label]."
        )
    if any(len(row) != len(names) for row in rows):
        raise _wrong_width(text, names, path=path, delimiter=delimiter, form=form, quoted=found.quoted)
    columns = [[row[i] for row in rows[first:]] for i in range(len(names))]
    notes += found.notes
    if form.columns is None:
        names, columns, left_out = headers.check(names, columns, path=path)
        notes += left_out
    return dict(zip(names, columns, strict=True)), notes


def _wrong_width(
    text: str, names: Sequence[str], *, path: str, delimiter: str, form: TextFormat, quoted: bool
) -> InputError:
    rows = list(records.numbered(text, delimiter, quoted=quoted))
    total = len(rows) - (0 if form.columns else 1)
    wrong = [(number, len(cells)) for number, cells in rows if len(cells) != len(names)]
    first = ", ".join(f"line {number} has {count}" for number, count in wrong[:3])
    more = f", and {len(wrong) - 3:,} more" if len(wrong) > 3 else ""
    expected = f"the {len(names)} cells of " + ("data.columns" if form.columns else "the header")
    hint = (
        f"Cells are separated by {records.delimiter_name(delimiter)}; quote a cell that contains it, "
        "or set data.delimiter or data.quoting (none: quotes are part of the text)."
    )
    if len(names) == 1:
        hint = "A file with one text per line needs no quoting if its name ends in .txt."
    return InputError(
        f"{path}: {len(wrong):,} of {total:,} rows do not have {expected} "
        f"({', '.join(names)[:80]}): {first}{more}. {hint}"
    )
