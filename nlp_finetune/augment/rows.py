"""Training rows whose texts are changed when they are drawn, and tokenized then.

Tokenized rows are cached once; a changed text is tokenized anew, for the one draw, with the generator of
(seed, epoch, row) that `data.drawing` gives. The plan of batches keeps the lengths of the rows as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_finetune.errors import InputError

WINDOW = "window"
"""Column of tokenized rows: which of its row's windows each is, counted from 0."""


def numbered_windows(encoded: Any) -> Any:
    """Tokenized rows with the column `WINDOW`."""
    source = np.asarray(encoded["source"])
    first = np.flatnonzero(np.diff(source, prepend=-1))
    counts = np.diff([*first, len(source)])
    return encoded.add_column(WINDOW, (np.arange(len(source)) - np.repeat(first, counts)).tolist())


@dataclass(frozen=True)
class ChangedTexts:
    """Transform of a tokenized row: with `probability` the same window of its row's changed text, in its place.

    `rows` are the canonical rows, `change` changes the texts of one, and `encode` tokenizes a batch of them. A
    window that the changed text does not have, and a text that has become too long, are drawn as they were.
    """

    rows: Sequence[Mapping[str, Any]]
    change: Callable[[Mapping[str, Any], np.random.Generator], Mapping[str, Any]]
    encode: Callable[[dict[str, list[Any]]], Mapping[str, list[Any]]]
    probability: float

    def changed(self, source: int, random: np.random.Generator) -> Mapping[str, Any] | None:
        """The canonical row at a position with its texts changed; None where it is left as it is."""
        return None if random.random() >= self.probability else self.change(self.rows[source], random)

    def __call__(self, example: Mapping[str, Any], random: np.random.Generator) -> dict[str, Any]:
        changed = self.changed(example["source"], random)
        if changed is None:
            return dict(example)
        try:
            windows = self.encode({name: [value] for name, value in changed.items()})
        except InputError:  # `on_long=error`, and a text that has grown
            return dict(example)
        if example[WINDOW] >= len(windows["source"]):
            return dict(example)
        new = {name: values[example[WINDOW]] for name, values in windows.items()}
        return {**new, "source": example["source"], WINDOW: example[WINDOW]}
