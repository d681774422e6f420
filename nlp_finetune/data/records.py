"""From delimited text to records: which character separates cells, and whether quotes quote.

Both are decided by what makes the file regular. Default CSV readers take a stray quote at the start
of a cell for the beginning of a quoted one and swallow lines until the next quote, without a word.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nlp_finetune.errors import InputError

DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|"}
_OWN = {"csv": ",", "tsv": "\t", "tab": "\t"}
_SNIFFED_CHARACTERS = 65_536
_SNIFFED_LINES = 50
_REGULAR = 0.9


@dataclass(frozen=True)
class Records:
    """Cells of a file, blank lines apart, and how they were read."""

    cells: list[list[str]]
    quoted: bool
    notes: list[str]


def delimiter_name(delimiter: str) -> str:
    """Name of a delimiter for messages."""
    return next((name for name, value in DELIMITERS.items() if value == delimiter), repr(delimiter))


def sniff_delimiter(text: str, *, suffix: str, width: int | None, path: str) -> tuple[str, list[str]]:
    """The delimiter that makes the first lines regular: the suffix's own if it does.

    `width` is the number of columns, where the user named them.
    """
    own = _OWN.get(suffix, "\t")
    shares = {own: _regularity(text, own, width)}
    if shares[own] < _REGULAR:
        for delimiter in DELIMITERS.values():
            shares.setdefault(delimiter, _regularity(text, delimiter, width))
    best = max(shares, key=lambda delimiter: shares[delimiter])
    if best == own:
        return own, []
    return best, [f"{path}: cells are separated by {delimiter_name(best)}"]


def _regularity(text: str, delimiter: str, width: int | None) -> float:
    """Share of the first lines with as many cells as the first one, 0 if that is a single cell."""
    head = text[:_SNIFFED_CHARACTERS]
    lines = [line for line in head.split("\n")[: _SNIFFED_LINES + 1] if line.strip("\r")]
    if len(lines) > 1 and len(head) < len(text):
        lines.pop()
    best = 0.0
    for records in (_plain("\n".join(lines), delimiter), _lenient("\n".join(lines), delimiter) or []):
        expected = width or (len(records[0]) if records else 1)
        if expected > 1:
            best = max(best, sum(len(record) == expected for record in records) / len(records))
    return best


def split(text: str, *, delimiter: str, quoting: str, width: int | None, path: str) -> Records:
    """Cut a text into records, quotes understood only where the whole file is quoted properly.

    `quoting` is `auto`, `none` (quotes are text) or `minimal` (always understood). Raises
    `InputError` naming the line where a quote opens that never closes, or where the file is
    regular in neither reading.
    """
    if quoting == "none":
        return Records(_plain(text, delimiter), False, [])
    if quoting == "minimal":
        return Records(_quoted(text, delimiter, path), True, [])
    if not _has_opening_quote(text, delimiter):
        return Records(_plain(text, delimiter), False, [])
    plain = _plain(text, delimiter)
    strict = _strict(text, delimiter)
    plain_is_regular = _is_regular(plain, width)
    if strict is None:
        if not plain_is_regular:
            raise _broken_quote(text, delimiter, path)
        joined = _lenient(text, delimiter)
        return Records(plain, False, [_quotes_are_text(plain, joined, width, path)])
    joins_lines = len(strict) < len(plain)
    if joins_lines and plain_is_regular and _lines_are_rows(strict, delimiter):
        return Records(plain, False, [_quotes_are_text(plain, strict, width, path)])
    if not _is_regular(strict, width) and _stray(plain, width) < _stray(strict, width):
        return Records(plain, False, [])
    return Records(strict, True, [])


def numbered(text: str, delimiter: str, *, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Records with the number of the line each begins in; slow, for messages."""
    if not quoted:
        for number, line in enumerate(_lines(text), start=1):
            if line:
                yield number, line.split(delimiter)
        return
    start = 1
    with _cells_of_any_size(text):
        reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter)
        for record in reader:
            if record:
                yield start, record
            start = reader.line_num + 1


def _lines(text: str) -> list[str]:
    # Not splitlines, which also cuts at characters that are part of a text, U+2028 and U+0085 among them.
    return text.replace("\r\n", "\n").split("\n")


def _plain(text: str, delimiter: str) -> list[list[str]]:
    return [line.split(delimiter) for line in _lines(text) if line]


def _strict(text: str, delimiter: str) -> list[list[str]] | None:
    """Quote-aware records, None where a quote opens or closes in the wrong place."""
    return _read(text, delimiter, strict=True)


def _lenient(text: str, delimiter: str) -> list[list[str]] | None:
    return _read(text, delimiter, strict=False)


def _read(text: str, delimiter: str, *, strict: bool) -> list[list[str]] | None:
    lines = io.StringIO(text, newline="\n")
    try:
        with _cells_of_any_size(text):
            return [record for record in csv.reader(lines, delimiter=delimiter, strict=strict) if record]
    except csv.Error:
        return None


@contextmanager
def _cells_of_any_size(text: str) -> Iterator[None]:
    limit = csv.field_size_limit(len(text) + 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _quoted(text: str, delimiter: str, path: str) -> list[list[str]]:
    """Quote-aware records as most readers make them, refused where a quote swallows the rest."""
    records = _strict(text, delimiter)
    if records is not None:
        return records
    # A last line of our own stays a record of its own unless a quote is still open.
    ended = text if text.endswith("\n") else text + "\n"
    records = _lenient(ended + "end\n", delimiter)
    if records is None or records.pop() != ["end"]:
        raise _broken_quote(text, delimiter, path)
    return records


def _has_opening_quote(text: str, delimiter: str) -> bool:
    return text.startswith('"') or f'{delimiter}"' in text or '\n"' in text


def _is_regular(records: list[list[str]], width: int | None) -> bool:
    return bool(records) and _stray(records, width) == 0


def _stray(records: list[list[str]], width: int | None) -> int:
    """Number of records whose cells are not as many as they should be."""
    expected = width or len(records[0])
    return sum(len(record) != expected for record in records)


def _lines_are_rows(strict: list[list[str]], delimiter: str) -> bool:
    """Whether the lines that quoting joins are rows of their own, where both readings are regular.

    By chance, lines of a quoted text can have as many commas as a row. Lines that are rows, though,
    have their label, say, where other rows have theirs. A text with tabs in it is no such chance.
    """
    if len(strict[0]) == 1:
        return False
    if delimiter == "\t":
        return True
    joined = [record for record in strict if any("\n" in cell for cell in record)]
    others = [record for record in strict if not any("\n" in cell for cell in record)]
    lines = [line.split(delimiter) for record in joined for line in delimiter.join(record).split("\n")]
    values = [{record[i] for record in others if i < len(record)} for i in range(len(strict[0]))]
    return any(all(i < len(line) and line[i] in known for line in lines) for i, known in enumerate(values))


def _quotes_are_text(plain: list[list[str]], joined: list[list[str]] | None, width: int | None, path: str) -> str:
    if joined is None or len(joined) == len(plain):
        return f"{path}: read without quoting, its quotes are part of the text"
    headers = 1 if width is None else 0
    return (
        f"{path}: read without quoting; as quoting, its quotes would join lines and leave "
        f"{len(joined) - headers:,} of {len(plain) - headers:,} rows"
    )


def _broken_quote(text: str, delimiter: str, path: str) -> InputError:
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter, strict=True)
    start, reason = 1, "the quoting is broken"
    try:
        with _cells_of_any_size(text):
            for _ in reader:
                start = reader.line_num + 1
    except csv.Error as error:
        if "end of data" in str(error):
            reason = "a quote opens in this row that never closes"
        elif "expected after" in str(error):
            reason = f"a quoted cell of this row closes in the middle of a text (in line {reader.line_num})"
        elif "new-line character" in str(error):
            reason = "a carriage return stands inside this row"
    return InputError(
        f"{path}, line {start}: {reason}, and without quoting the rows differ in their number of cells. "
        'Double the quotes inside quoted cells ("" for "), or say data.quoting=none if quotes are part of '
        "the text."
    )
