"""CoNLL column files: one word a line, its tag in the last column, a blank line between sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from nlp_finetune.errors import InputError

WORDS, TAGS = "tokens", "tags"
_BREAK = "-DOCSTART-"
_ENTITY_TAG = re.compile(r"[BIESMLUW][-_]\S+")
_SNIFFED_LINES = 400
_MOST_COLUMNS = 4


def looks_like(text: str) -> bool:
    """Whether the first lines are those of a column file: 2 to 4 columns, the last `O` or `B-PER` and the like.

    Strict enough that no file of texts or table of labels passes for one: every line must fit, and some
    must begin an entity.
    """
    lines = [line for line in _lines(text[: _SNIFFED_LINES * 200])[:_SNIFFED_LINES] if line.strip()]
    if len(lines) > 1 and len(text) > _SNIFFED_LINES * 200:
        lines.pop()  # cut off
    tab = _has_tabs(lines)
    cells = [_cells(line, tab=tab) for line in lines if not _is_break(line)]
    widths = {len(row) for row in cells}
    if len(widths) != 1 or not 2 <= max(widths) <= _MOST_COLUMNS:
        return False
    tags = [row[-1] for row in cells]
    entities = [tag for tag in tags if _ENTITY_TAG.fullmatch(tag)]
    return bool(entities) and len(entities) + tags.count("O") == len(tags)


def parse(text: str, *, path: str, columns: Sequence[str] | None, delimiter: str | None) -> tuple[pa.Table, list[str]]:
    """One row a sentence, each column a list of strings, and a note on what was read.

    The first column is `tokens` and the last `tags`, those between `column2`, ...; `columns` names them
    otherwise. A file of one column has words alone. `-DOCSTART-` lines end a sentence, `#` lines of
    another width are comments. Raises `InputError` naming the line that has another number of columns.
    """
    if delimiter not in (None, "\t", " "):
        raise InputError(f"{path}: columns of such a file are separated by tabs or spaces, not by {delimiter!r}.")
    lines = _lines(text)
    tab = delimiter == "\t" or (delimiter is None and _has_tabs(lines))
    width = len(columns) if columns is not None else _width(lines, tab=tab)
    names = list(columns) if columns is not None else _names(width)
    sentences: list[list[list[str]]] = [[]]
    for number, line in enumerate(lines, start=1):
        if _is_break(line):
            sentences.append([])
            continue
        cells = _cells(line, tab=tab)
        if len(cells) != width and line.startswith("#"):
            continue
        if len(cells) != width or not all(cells):
            raise InputError(
                f"{path}, line {number}: expected {width} column{'s' * (width > 1)} ({', '.join(names)}), "
                f"separated by {'tabs' if tab else 'spaces'}, found {line.strip()[:60]!r}."
            )
        sentences[-1].append(cells)
    kept = [sentence for sentence in sentences if sentence]
    if not kept:
        raise InputError(f"{path} has no sentences.")
    table = {name: pa.array([[c[i] for c in s] for s in kept], pa.list_(pa.string())) for i, name in enumerate(names)}
    read = f"{', '.join(names)}; {len(kept):,} sentence{'s' * (len(kept) > 1)}, {sum(map(len, kept)):,} words"
    return pa.table(table), [f"{path}: a column file with {read}"]


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").split("\n")


def _has_tabs(lines: Sequence[str]) -> bool:
    return "\t" in next((line for line in lines if not _is_break(line) and not line.startswith("#")), "")


def _is_break(line: str) -> bool:
    return not line.strip(" \t") or line.startswith(_BREAK)


def _cells(line: str, *, tab: bool) -> list[str]:
    # Not a bare split: an ideographic or no-break space may be the word itself.
    return line.rstrip("\t ").split("\t") if tab else re.split("[ \t]+", line.strip(" \t"))


def _width(lines: Sequence[str], *, tab: bool) -> int:
    """The usual number of columns; anything else is an error or a comment."""
    counts = Counter(len(_cells(line, tab=tab)) for line in lines[:_SNIFFED_LINES] if not _is_break(line))
    return counts.most_common(1)[0][0] if counts else 1


def _names(width: int) -> list[str]:
    return [WORDS] if width == 1 else [WORDS, *(f"column{i}" for i in range(2, width)), TAGS]
