"""Texts of users inside Markdown: whatever they hold, they stay where they are put.

The template's environment escapes every value that is not `Markdown`, so that a label called
`<script>`, a `|` in a table or a mark that turns the direction of writing do nothing.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
"""Control characters, and marks that change the direction of the text around them or are not seen at all."""
_SPECIAL = re.compile(r"([\\`*\[\]|~#$^]|(?<![^\W_])_|_(?![^\W_]))")
"""What means something in Markdown; an underscore inside a word does not."""
_IDENTIFIER = re.compile(r"[\w./:@+=, -]+", re.ASCII)
_METRIC = re.compile(r"[A-Za-z][\w@.-]*", re.ASCII)
LONGEST = 160


class Markdown(str):
    """Text that is Markdown already and is not escaped again."""

    __slots__ = ()


def plain(text: object, *, limit: int | None = None) -> str:
    """A text on one line, without characters that are not seen; cut after `limit` characters."""
    line = " ".join(_UNSEEN.sub("", str(text)).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def escape(value: object) -> Markdown:
    """A value as Markdown that shows it as it is, on one line; `Markdown` stays."""
    if isinstance(value, Markdown):
        return value
    text = plain(value, limit=LONGEST).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Without the slashes an address is no link.
    return Markdown(_SPECIAL.sub(r"\\\1", text).replace("://", ":\\/\\/"))


def code(value: object) -> Markdown:
    """An identifier, path or number in code type; anything else escaped."""
    text = plain(value, limit=LONGEST)
    return Markdown(f"`{text}`") if _IDENTIFIER.fullmatch(text) and text == text.strip() else escape(value)


def metric(name: str) -> Markdown:
    """Name of a metric."""
    return Markdown(name) if _METRIC.fullmatch(name) else escape(name)


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> Markdown:
    """A table; columns without any content are left out, and so is a table without rows."""
    lines: list[list[str]] = [[escape("" if cell is None else cell) for cell in row] for row in rows]
    if not lines:
        return Markdown("")
    kept = [i for i in range(len(header)) if any(line[i] for line in lines)]
    content: list[list[str]] = [
        [escape(header[i]) for i in kept],
        ["---"] * len(kept),
        *([line[i] for i in kept] for line in lines),
    ]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in content))


def folded(text: Markdown, summary: str) -> Markdown:
    """Markdown that is shown when its summary is clicked on."""
    return Markdown(f"<details>\n<summary>{escape(summary)}</summary>\n\n{text}\n\n</details>")


def fenced(text: str, language: str) -> Markdown:
    """A block of code that nothing in it can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markdown(f"{fence}{language}\n{text.strip()}\n{fence}")


def python_text(text: object, *, limit: int = 300) -> str:
    """A text as a Python literal on one line."""
    return json.dumps(plain(text, limit=limit), ensure_ascii=False)


def shell(words: Iterable[Any]) -> str:
    """A command line for a shell."""
    return shlex.join(plain(word) for word in words)
