"""Is the first line of a table its header?

Taking a data row for column names loses a row and names the columns nonsense, so a first line that
looks like data is refused with the setting that describes the file; nothing is guessed in silence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nlp_finetune.errors import InputError

_LONGEST_NAME = 60
_FEW_VALUES = 20
_USUAL = re.compile(
    r"(text|sentence|label|labels|id|guid|idx|index|review|reviews|content|title|comment|question|answer|answers"
    r"|context|premise|hypothesis|category|class|target|sentiment|score|rating|stars|tweet|message|body|document"
    r"|summary|dialogue|intent|topic|tokens|tags|name|url|date|source|genre|language|split|query|passage|image"
    r"|file|choices|row|文本|内容|标签|标注|类别|分类|评论|句子|标题|情感)([ _#-]?(\d{1,2}|[a-z]))?"
)

Columns = list[list[str]]


def check(names: Sequence[str], columns: Columns, *, path: str) -> tuple[list[str], Columns, list[str]]:
    """Names and columns of a table whose first line is a header, and notes on what was left out.

    Unnamed columns that only count the rows (written by pandas) or are empty are left out. Raises
    `InputError` if the first line looks like data or does not name every column once.
    """
    evidence = _looks_like_data(names, columns)
    if evidence:
        raise InputError(
            f"{path}: the first line looks like data, not like a header: {evidence}. "
            f"If the file has no header, name its columns: data.columns={_suggest(names, columns)}. "
            "If that line is the header, rename that column."
        )
    stripped = [name.strip() for name in names]
    kept, notes = [], []
    for i, name in enumerate(stripped):
        if name:
            kept.append(i)
        elif i == 0 and _counts_rows(columns[0]):
            notes.append(f"{path}: the unnamed first column counts the rows, left out")
        elif not any(columns[i]):
            notes.append(f"{path}: column {i + 1} has no name and no content, left out")
        else:
            raise InputError(
                f"{path}: column {i + 1} has no name in the first line. "
                "Name it there, or, if the file has no header, name all columns: "
                f"data.columns={_suggest(names, columns)}."
            )
    return [stripped[i] for i in kept], [columns[i] for i in kept], notes


def _looks_like_data(names: Sequence[str], columns: Columns) -> str | None:
    """What gives a first line away as data, in words; None if it passes for a header."""
    duplicate = next((name for i, name in enumerate(names) if name.strip() and name in names[:i]), None)
    if duplicate is not None:
        return f"{_shown(duplicate)} stands in it twice"
    if list(names) == [str(i) for i in range(len(names))]:
        return None  # pandas' names for columns without one
    usual = (_USUAL.fullmatch(name.strip().lower()) for name in names)
    if any(hit and names[i] not in columns[i] for i, hit in enumerate(usual)):
        return None
    for i, (name, values) in enumerate(zip(names, columns, strict=True)):
        where = f"(column {i + 1})"
        if len(name) > _LONGEST_NAME:
            return f"{_shown(name)} {where} is {len(name)} characters long"
        if name and name in values and _few_values(values):
            return f"{_shown(name)} {where} occurs again in the rows below it"
        if _is_number(name) and any(values) and all(_is_number(value) for value in values if value):
            return f"{_shown(name)} {where} is a number, like all values below it"
    return None


def _few_values(values: Sequence[str]) -> bool:
    # A text column can hold its own name by chance; a column with labels repeats itself.
    return len(set(values)) <= max(_FEW_VALUES, len(values) // 2)


def _counts_rows(values: Sequence[str]) -> bool:
    return all(value == str(i) for i, value in enumerate(values))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else cell[:37] + "...")


def _suggest(names: Sequence[str], columns: Columns) -> str:
    """A first draft of data.columns: the longest column is the text, one with few values the label."""
    sizes = [len(name) + sum(map(len, values[:100])) for name, values in zip(names, columns, strict=True)]
    text = sizes.index(max(sizes))
    others = [i for i in range(len(names)) if i != text]
    label = min(others, key=lambda i: len({names[i], *columns[i]}), default=None)
    drafts = {text: "text"} if label is None else {text: "text", label: "label"}
    return "[" + ",".join(drafts.get(i, f"column{i + 1}") for i in range(len(names))) + "]"
