"""Examples of what the data hold, short enough to be shown."""

from __future__ import annotations

from nlp_finetune.data.duplicates import SplitTexts

_CHOSEN_FROM, _MOST_CLASSES, _LONGEST = 20, 200, 120
_READABLE = 60


def of_classes(rows: SplitTexts, *, separator: str | None) -> dict[str, str]:
    """A text of each class: of its first twenty the one whose length is easiest to read, on one line.

    `separator` divides the classes of a multi-label row. Classes beyond the first 200 have none.
    """
    found: dict[str, list[str]] = {}
    for text, label in zip(rows.texts, rows.labels, strict=True):
        for name in (label.split(separator) if separator else [label]) if label else []:
            texts = found.setdefault(name, [])
            if len(texts) < _CHOSEN_FROM:
                texts.append(text)
    return {
        name: _shorten(min(texts, key=lambda text: abs(len(text) - _READABLE)))
        for name, texts in list(found.items())[:_MOST_CLASSES]
    }


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1].rstrip() + "…"
