"""Plots as inline SVG whose colours are the page's own, so that they follow light and dark.

Drawn by matplotlib with text left as text. Each colour is a stand-in that becomes a CSS variable.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, LINE, PAPER = "#010101", "#020202", "#030303", "#040404"
ACCENT, SECOND, GOOD, THIRD, FOURTH, FIFTH = "#050505", "#060606", "#070707", "#080808", "#090909", "#0a0a0a"
_VARIABLES = {
    INK: "ink", MUTED: "muted", LINE: "line", PAPER: "card",
    ACCENT: "accent", SECOND: "second", GOOD: "good", THIRD: "third", FOURTH: "fourth", FIFTH: "fifth",
}  # fmt: skip
SERIES = (ACCENT, SECOND, GOOD, THIRD, FOURTH, FIFTH)
"""Colours of several lines in one plot, in order."""

_SIZE_INCHES = (5.0, 2.9)
_FONT_SIZE = 10
_SETTINGS = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": _FONT_SIZE,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
_MOST_POINTS = 500
_MARKED = 40
"""Lines of at most so many points show each of them."""


def draw(name: str, fill: Callable[[Axes], None]) -> str:
    """One plot as an `<svg>` element without size, decorations or a font of its own.

    `fill` draws into the axes; `name` begins every id, so that plots can share a page.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({**_SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has fonts that matplotlib lacks, and it is the browser that draws the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=_SIZE_INCHES)
        figure.patch.set_alpha(0)
        axes = figure.add_axes((0.125, 0.155, 0.855, 0.815))
        axes.patch.set_alpha(0)
        fill(axes)
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(out, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(out.getvalue(), name)


def _inline(text: str, name: str) -> str:
    """What belongs into a page of an SVG file by matplotlib."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.S)
    text = re.sub(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    used = set(re.findall(r"#([\w.-]+)[\")]", text))
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", text).replace("xlink:href", "href")
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    # A text without a colour of its own is black, also on black.
    text = re.sub(r'<text style="(?![^"]*fill:)', '<text style="fill: var(--ink); ', text)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _short(value: float) -> str:
    """`0.5`, `12`, `3e-5`: a number that fits beside an axis."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.4g}"


def thinned(points: Sequence[Any]) -> list[Any]:
    """At most 500 of the points, evenly, with the first and the last."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    step = (len(points) - 1) / (_MOST_POINTS - 1)
    return [points[round(i * step)] for i in range(_MOST_POINTS)]


Points = Sequence[tuple[float, float]]
"""Optimizer steps and values."""


def lines(
    name: str,
    series: dict[str, Points],
    *,
    best: tuple[float, float] | None = None,
    dotted: Sequence[str] = (),
    logarithmic: bool = False,
) -> str:
    """Values by optimizer step; `best` is marked; a legend tells several lines apart.

    `dotted` names lines of few, separate measurements, drawn with a dot for each. With `logarithmic`, equal
    distances are equal ratios; values are then above 0.
    """

    def fill(axes: Axes) -> None:
        for colour, (label, points) in zip(SERIES * len(series), series.items(), strict=False):
            x, y = zip(*thinned(points), strict=True)
            marker = "o" if label in dotted or len(points) == 1 else None
            axes.plot(x, y, color=colour, label=label, marker=marker if len(points) <= _MARKED else None, markersize=4)
        if best is not None:
            axes.plot(
                [best[0]], [best[1]], marker="o", markersize=10, markerfacecolor="none", markeredgecolor=GOOD,
                markeredgewidth=2.2, linestyle="none", label="best",
            )  # fmt: skip
        last = max(x for points in series.values() for x, _ in points)
        axes.set(xlabel="step", xlim=(0, last * 1.03))
        axes.margins(y=0.12)
        axes.locator_params(axis="x", integer=True)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter("")
        axes.yaxis.set_major_formatter(lambda value, _: _short(value))
        if len(series) > 1 or best is not None:
            axes.legend(loc="best", labelcolor=MUTED, fontsize=_FONT_SIZE - 1, handlelength=1.4)

    return draw(name, fill)


def by_rate(name: str, series: dict[str, Points], *, best: tuple[float, float] | None) -> str:
    """Losses by learning rate, on a logarithmic scale; `best` is marked. The last line is the one that counts."""

    def fill(axes: Axes) -> None:
        for number, (label, points) in enumerate(series.items(), 1):
            counts = number == len(series)
            x, y = zip(*thinned(points), strict=True)
            axes.plot(x, y, color=ACCENT if counts else MUTED, label=label, linewidth=1.8 if counts else 0.8)
        if best is not None:
            axes.plot(
                [best[0]], [best[1]], marker="o", markersize=10, markerfacecolor="none", markeredgecolor=GOOD,
                markeredgewidth=2.2, linestyle="none", label="suggested",
            )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        # What diverges at the end must not press the rest flat.
        means = [y for _, y in list(series.values())[-1]]
        low, first = min(means), means[0]
        axes.set_ylim(low - 0.1 * (first - low + 1e-6), first + 0.6 * (first - low + 1e-6))
        axes.set(xlabel="learning rate")
        axes.legend(loc="best", labelcolor=MUTED, fontsize=_FONT_SIZE - 1, handlelength=1.4)

    return draw(name, fill)


def reliability(name: str, bins: Sequence[dict[str, Any]]) -> str:
    """How often predictions of each confidence are right, beside the line where the two are equal."""

    def fill(axes: Axes) -> None:
        largest = max(b["rows"] for b in bins)
        for b in bins:
            axes.bar(
                b["low"], b["accuracy"], width=b["high"] - b["low"], align="edge", color=ACCENT,
                alpha=0.25 + 0.6 * b["rows"] / largest, edgecolor=PAPER, linewidth=1,
            )  # fmt: skip
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.plot(
            [b["confidence"] for b in bins], [b["accuracy"] for b in bins], color=SECOND, marker="o", markersize=5,
            linewidth=1.2,
        )  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence")

    return draw(name, fill)


def by_length(name: str, groups: Sequence[dict[str, Any]], metric: str) -> str:
    """The score of each group of lengths, with the number of its rows above the bar."""

    def fill(axes: Axes) -> None:
        values = [group[metric] for group in groups]
        axes.bar(range(len(groups)), values, width=0.72, color=ACCENT)
        for place, value in enumerate(values):
            axes.text(place, value, f"{value:.2f}", ha="center", va="bottom", color=INK, fontsize=_FONT_SIZE - 1)
        names = [str(g["low"]) if g["low"] == g["high"] else f"{g['low']}–{g['high']}" for g in groups]  # noqa: RUF001
        axes.set_xticks(range(len(groups)), names)
        axes.set_xlabel("tokens")
        axes.set_ylim(0, max(values) * 1.15 or 1)
        axes.grid(visible=False, axis="x")

    return draw(name, fill)


def points(name: str, found: Sequence[dict[str, float]]) -> str:
    """Predicted numbers over true ones, beside the line where the two are equal."""

    def fill(axes: Axes) -> None:
        true, predicted = [p["label"] for p in found], [p["predicted"] for p in found]
        low, high = min(true + predicted), max(true + predicted)
        axes.plot([low, high], [low, high], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.plot(true, predicted, color=ACCENT, marker="o", markersize=4, linestyle="none", alpha=0.6)
        axes.set(xlabel="true")

    return draw(name, fill)
