"""Training that starts behind a frozen prefix: batches that bring its states along, and an objective that uses them.

The items of a row are its tokens where the states are one for each token, else one item for the whole row. Tokens are
kept without padding and are put where the batch at hand has its tokens, with zeros in the padding. Padding is hidden
from attention and from heads, so that the result is that of the whole model up to rounding: sums over a row run in
another order where its batch is padded to another length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_finetune.data.drawing import ROW, Transform
from nlp_finetune.data.states import States
from nlp_finetune.models.prefix import Prefix, passed_over

STATES = "prefix_states"
"""Key of a batch under which the states of its rows stand."""
_MASK = "attention_mask"

Objective = Callable[[Any, Any, Any], tuple[Tensor, Any]]
Collate = Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]


class Unfit(ValueError):
    """States that can't be told apart by rows."""


@dataclass(frozen=True)
class Form:
    """How states become items and items states again: one for each token or for each row, and their type."""

    by_token: bool
    dtype: torch.dtype

    @property
    def stored(self) -> np.dtype[Any]:
        """Type on disk; numpy has no bfloat16, whose bits are kept as whole numbers."""
        return np.dtype(np.int16) if self.dtype == torch.bfloat16 else torch.zeros(0, dtype=self.dtype).numpy().dtype

    def to_disk(self, items: Tensor) -> np.ndarray:
        """Items as they are written."""
        items = items.detach().cpu().contiguous()
        return (items.view(torch.int16) if self.dtype == torch.bfloat16 else items).numpy()

    def from_disk(self, items: np.ndarray) -> Tensor:
        """Items as they were."""
        tensor = torch.from_numpy(items)
        return tensor.view(torch.bfloat16) if self.dtype == torch.bfloat16 else tensor


def form_of(states: Tensor, batch: Mapping[str, Any], rows: int) -> Form:
    """How the states of a batch of so many rows are kept.

    Raises `Unfit` where they are neither those of tokens, as the batch's mask shows them, nor of rows.
    """
    mask = batch.get(_MASK)
    if states.ndim >= 3 and mask is not None and mask.numel() == states.shape[0] * states.shape[1]:
        if mask.shape[0] != rows:
            raise Unfit("the rows of a batch are not those of its mask")
        return Form(True, states.dtype)
    if states.shape[0] != rows:
        raise Unfit(f"{states.shape[0]} states for {rows} rows")
    return Form(False, states.dtype)


def items_of(states: Tensor, batch: Mapping[str, Any], rows: int, form: Form) -> list[Tensor]:
    """The items `[count, ...]` of each row of a batch."""
    if not form.by_token:
        return [states[row : row + 1] for row in range(rows)]
    mask = batch[_MASK].to(states.device).bool()
    counts = mask.reshape(rows, -1).sum(1).tolist()
    return list(torch.split(states.reshape(mask.numel(), *states.shape[2:])[mask.reshape(-1)], counts))


def placed(items: Tensor, batch: Mapping[str, Any], form: Form) -> Tensor:
    """States of a batch from the items of its rows, one row behind the other."""
    if not form.by_token:
        return items
    mask = batch[_MASK].bool()
    states = items.new_zeros(mask.numel(), *items.shape[1:])
    states[mask.reshape(-1)] = items
    return states.view(-1, mask.shape[-1], *items.shape[1:])


@dataclass(frozen=True)
class WithStates:
    """A collator whose batches have the states of their rows, which carry their number (`DrawnRows`)."""

    collate: Collate
    states: States
    form: Form

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.collate([{name: value for name, value in row.items() if name != ROW} for row in rows])
        items, _ = self.states.read([row[ROW] for row in rows])
        batch[STATES] = placed(self.form.from_disk(items), batch, self.form)
        return batch


@dataclass(frozen=True)
class Shortcut:
    """What takes the place of collator, transform and objective where the rows of a split have their states.

    `unseen` is the transform then, for rows whose change is what costs time (images): the model does not look
    at what it gives.
    """

    prefix: Prefix
    like: Any
    form: Form
    states: States
    unseen: Transform | None

    def collate(self, collate: Collate) -> Collate:
        """Batches with states."""
        return WithStates(collate, self.states, self.form)

    def transform(self, transform: Transform | None) -> Transform | None:
        """What happens to a row on its way into a batch."""
        return transform if self.unseen is None else self.unseen

    def objective(self, objective: Objective) -> Objective:
        """The same objective of a model that starts from the states of a batch, taken out of it, if it has some."""

        def from_states(model: Any, batch: Any, num_items: Any) -> tuple[Tensor, Any]:
            states = batch.pop(STATES, None)
            if states is None:
                return objective(model, batch, num_items)
            with passed_over(self.prefix, states, self.like):
                return objective(model, batch, num_items)

        return from_states
