"""A page with training rows before and after augmentation, as the first epochs see them."""

from __future__ import annotations

import base64
import difflib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nlp_finetune import augmenting
from nlp_finetune.augment.rows import ChangedTexts
from nlp_finetune.augment.words import Word, split
from nlp_finetune.data.drawing import DrawnRows, generator
from nlp_finetune.reports.page import render
from nlp_finetune.runs.folder import write_text

if TYPE_CHECKING:
    from nlp_finetune.preparation import Prepared

_ROWS, _EPOCHS = 16, 3
_MOST_WORDS = 120
"""Words of a text that are shown; what comes after them is cut off."""


def write_preview(prepared: Prepared, path: Path) -> None:
    """Write the page. Raises `OSError` where the file cannot be written."""
    write_text(path, render("preview.html", content(prepared)))


def content(prepared: Prepared) -> dict[str, Any]:
    """What the page shows: rows spread over the training data, each as it is and as three epochs draw it."""
    recipe, augment = prepared.recipe, prepared.recipe.augment
    drawn = augmenting.drawn_rows(prepared)
    places = np.unique(np.linspace(0, len(drawn) - 1, min(_ROWS, len(drawn))).astype(int)).tolist()
    show = _texts if isinstance(drawn.transform, ChangedTexts) else _images
    return {
        "title": f"{recipe.name}: augmentation",
        "subtitle": f"{augment.probability:.0%} of the rows in each epoch: {augmenting.describe(augment)}",
        "sections": [("rows", "Training rows")],
        "images": prepared.task.images,
        "epochs": list(range(1, _EPOCHS + 1)),
        "rows": [show(prepared, drawn, place) for place in places],
    }


def _about(prepared: Prepared, source: int) -> dict[str, Any]:
    row = prepared.rows["train"][source]
    return {"row": row["row"], "label": prepared.task.row_label(row)}


def _texts(prepared: Prepared, drawn: DrawnRows, place: int) -> dict[str, Any]:
    """A row's texts, and for each epoch the same as parts that were kept, taken out and put in."""
    transform = drawn.transform
    assert isinstance(transform, ChangedTexts)
    source = drawn.rows[place]["source"]
    before = dict(transform.rows[source])
    names = [name for name in prepared.task.changeable_texts if before.get(name)]
    epochs = []
    for epoch in range(_EPOCHS):
        after = transform.changed(source, generator(drawn.seed, epoch, place))
        same = after is None or all(after[name] == before[name] for name in names)
        epochs.append(None if same else [differences(before[name], after[name]) for name in names])  # type: ignore[index]
    return {**_about(prepared, source), "before": [_cut(before[name]) for name in names], "epochs": epochs}


def differences(before: str, after: str) -> list[tuple[str, str]]:
    """A text as parts that are `same`, `out` (of `before` alone) and `in` (of `after` alone), word by word."""
    one, other = split(before)[:_MOST_WORDS], split(after)[:_MOST_WORDS]
    compared = difflib.SequenceMatcher(None, [w.text for w in one], [w.text for w in other], autojunk=False)
    parts: list[tuple[str, str]] = []
    for what, a, b, c, d in compared.get_opcodes():
        found = [("same", one[a:b])] if what == "equal" else [("out", one[a:b]), ("in", other[c:d])]
        parts += [(kind, _text(words)) for kind, words in found if words]
    return parts


def _text(words: Sequence[Word]) -> str:
    return "".join(word.gap + word.text for word in words)


def _cut(text: str) -> str:
    words = split(text)
    return _text(words[:_MOST_WORDS]) + (" …" if len(words) > _MOST_WORDS else "")


def _images(prepared: Prepared, drawn: DrawnRows, place: int) -> dict[str, Any]:
    """A row's image as evaluation sees it and as each epoch does, for a page to hold."""
    evaluated = prepared.task.transform(prepared.processor)
    assert evaluated is not None
    before = evaluated(drawn.rows[place], generator(drawn.seed, 0, place))["pixels"]
    epochs = [_held(drawn[epoch * len(drawn) + place]["pixels"]) for epoch in range(_EPOCHS)]
    return {**_about(prepared, drawn.rows[place]["source"]), "before": _held(before), "epochs": epochs}


def _held(pixels: Sequence[Any]) -> str:
    """Pixels `[height, width, 3]` as the address of an image that is its own content."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
