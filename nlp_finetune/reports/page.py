"""Pages: Jinja templates that escape everything, filled with what `sections` makes of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nlp_finetune
from nlp_finetune.reports import comparing, sections
from nlp_finetune.reports.comparing import Comparison
from nlp_finetune.reports.reading import RunData, read
from nlp_finetune.runs.folder import RunFolder, write_text

if TYPE_CHECKING:
    from jinja2 import Environment

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that HTML cannot hold, and halves of characters that UTF-8 cannot."""


def write_report(folder: RunFolder, output: Path | None = None, *, name: str | None = None) -> Path:
    """Write the page of a run from its files, whole or not at all; gives its path.

    Raises `OSError` where the file cannot be written.
    """
    path = output or folder.report
    write_text(path, render_run(read(folder, name=name)))
    return path


def render_run(run: RunData) -> str:
    """The page of one run."""
    return render("report.html", sections.of_run(run))


def write_comparison(runs: Sequence[RunData], comparisons: Sequence[Comparison], output: Path) -> None:
    """Write the page of several runs. Raises `OSError` where the file cannot be written."""
    write_text(output, render("comparison.html", comparing.of_runs(runs, comparisons)))


def render(template: str, content: dict[str, Any]) -> str:
    """A page from one of the templates."""
    return (
        _environment()
        .get_template(template)
        .render(
            version=nlp_finetune.__version__,
            written=datetime.now().strftime("%Y-%m-%d %H:%M"),
            style=_style(),
            **content,
        )
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader

    found = Environment(
        loader=PackageLoader("nlp_finetune.reports"),
        autoescape=True,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"score": score, "whole": whole, "percent": percent, "duration": duration}
    found.filters |= {"whole_mb": whole_mb, "dotted": dotted, "answer": answer}
    return found


@cache
def _style() -> Any:
    from markupsafe import Markup

    return Markup((files("nlp_finetune.reports") / "templates" / "style.css").read_text(encoding="utf-8"))


def _printable(value: Any) -> Any:
    """Text without characters that a page cannot hold; what is markup already stays so."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return _CONTROL.sub("\ufffd", value)
    return value


def score(value: Any, digits: int = 4) -> str:
    """`0.8612`; large numbers with fewer digits, a dash for none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "–"  # noqa: RUF001
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.1f}"


def whole(value: Any) -> str:
    """`12,345`, a dash for none."""
    return f"{value:,}" if isinstance(value, int) else "–"  # noqa: RUF001


def percent(share: Any) -> str:
    """`12.3 %`, a dash for none."""
    return f"{100 * share:.1f} %" if isinstance(share, int | float) else "–"  # noqa: RUF001


def whole_mb(megabytes: Any) -> str:
    """`1,433 MB`, a dash for none."""
    return f"{megabytes:,.0f} MB" if isinstance(megabytes, int | float) else "–"  # noqa: RUF001


def dotted(name: str) -> Any:
    """A name that may break into lines after its dots, and nowhere else."""
    from markupsafe import Markup, escape

    return Markup(".<wbr>").join(escape(part) for part in name.split("."))


def answer(prediction: Any) -> str:
    """A prediction of any task in short: its first values, without their names where there is one."""
    if not isinstance(prediction, dict):
        return "–"  # noqa: RUF001
    shown: dict[str, Any] = {
        k: f"{v:.3f}" if isinstance(v, float) else v for k, v in prediction.items() if v is not None
    }
    for name in ("label", "labels", "answer", "generated"):
        if name in shown:
            value = shown[name]
            words = " + ".join(map(str, value)) if isinstance(value, list) else str(value)
            return f"{words or '(none)'} ({shown['score']})" if "score" in shown else words or "(none)"
    if isinstance(shown.get("spans"), list):
        return "; ".join(f"{span['label']}: {span['text']}" for span in shown["spans"]) or "(none)"
    return ", ".join(f"{name} {value}" for name, value in list(shown.items())[:3])


def duration(seconds: Any) -> str:
    """`1 h 02 min`, `3 min 20 s`, `4.2 s`, a dash for none."""
    if not isinstance(seconds, int | float):
        return "–"  # noqa: RUF001
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
