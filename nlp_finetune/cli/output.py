"""What the verbs print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlp_finetune.check import Section

_WIDTH_WITHOUT_TERMINAL = 140
_EXAMPLE = "The soup was worth the wait."


def line(text: str, *, aside: bool = False) -> None:
    """One line for the user: on stdout, or `aside` on stderr where stdout carries JSON."""
    print(text, file=sys.stderr if aside else sys.stdout)


def warn(text: str) -> None:
    """One warning for the user, on stderr."""
    line(f"warning: {text}", aside=True)


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None, aside: bool = False
) -> None:
    """A small table; columns keep their full width where nobody watches."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=any(header))
    for name in header:
        shown.add_column(name, overflow="fold")
    for row in rows:
        shown.add_row(*[str(cell).replace("[", r"\[") for cell in row])
    watched = Console(stderr=aside)
    console = watched if watched.is_terminal else Console(width=_WIDTH_WITHOUT_TERMINAL)
    with console.capture() as captured:
        console.print(shown)
    # Cells are padded to the table's width; what follows the text is of no use in a log.
    lines = [text.rstrip() for text in captured.get().rstrip("\n").split("\n")]
    line("\n".join(lines), aside=aside)


def sections(parts: Sequence[Section]) -> None:
    """Titled tables, one after the other."""
    for part in parts:
        line("")
        table(part.header, part.rows, title=part.title)


def score_with_interval(scores: dict[str, Any], name: str) -> str:
    """`0.8612 (0.838 to 0.884)`: a score and its 95 % interval."""
    value = f"{scores[name]:.4f}"
    interval = scores.get(f"{name}_ci95")
    return f"{value} (95 % CI {interval[0]:.3f} to {interval[1]:.3f})" if interval else value


def example_arguments(run: str) -> str:
    """Arguments of `predict` with an input of the kind that the run was trained on."""
    try:
        check = json.loads((Path(run) / "check.json").read_text(encoding="utf-8"))
        option, inputs = check.get("example_option", "--text"), [shlex.quote(str(one)) for one in check["example"]]
        return " ".join(f"{option} {one}" for one in inputs or ["FILE"])
    except (OSError, ValueError, KeyError):
        return f"--text {shlex.quote(_EXAMPLE)}"
