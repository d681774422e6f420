"""A compact vocabulary: only the rows of the embedding table that training reads are trained.

A row that is never read has no gradient, so that no optimizer which treats every number by itself moves it: training
the others alone gives the same weights, with less to keep and to walk through in every step. What the table
is for everything else, evaluation, saving and loading, does not change.

Where weights decay apart from the gradient (AdamW, Lion), the rows that are not trained decay as they would have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.models import zero

_SAVED = "table_rows"
"""Key of a saved optimizer: which rows of a table each state of a compact one belongs to."""


class CompactEmbedding(nn.Embedding):
    """An embedding layer whose trained `weight` is `[rows read in training, width]`; `rest` holds the others.

    It looks up any token in evaluation and refuses in training those that it was not made for. Its state is
    that of the whole table: it saves and loads what `nn.Embedding` would.
    """

    def __init__(self, table: nn.Embedding, used: np.ndarray) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = table.num_embeddings, table.embedding_dim
        self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse = None, 2.0, False, False
        is_used = torch.zeros(table.num_embeddings, dtype=torch.bool)
        is_used[torch.as_tensor(used, dtype=torch.long)] = True
        self.used, unused = is_used.nonzero()[:, 0], (~is_used).nonzero()[:, 0]
        self.unused = unused
        place = torch.empty(table.num_embeddings, dtype=torch.long)
        place[self.used] = torch.arange(len(self.used))
        place[unused] = torch.arange(len(self.used), table.num_embeddings)
        self.place = place
        """Of each token: its row in `weight`, or, counted on from there, in `rest`."""
        self.padding_idx = None if table.padding_idx is None else int(place[table.padding_idx])
        device, trained = table.weight.device, table.weight.requires_grad
        values = table.weight.detach()
        self.weight = nn.Parameter(values[self.used.to(device)].clone(), requires_grad=trained)
        self.rest = nn.Parameter(values[unused.to(device)].clone(), requires_grad=False)
        self.weight.table = (self.used, self.num_embeddings)  # type: ignore[attr-defined]
        self.place = self.place.to(device)
        self.train(table.training)

    def _apply(self, fn: Any, recurse: bool = True) -> CompactEmbedding:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # No buffer: data-parallel wrappers would send it around in every step.
        self.place = fn(self.place)
        return self

    def forward(self, input: Tensor) -> Tensor:
        places = self.place[input]
        count = len(self.used)
        if self.training:
            if input.device.type == "cpu" and not torch.compiler.is_compiling() and bool((places >= count).any()):
                strange = torch.unique(input[places >= count]).tolist()
                raise NlpFinetuneError(
                    f"train.compact_vocabulary: tokens {strange[:5]} are in a training batch and in no training row. "
                    "Set train.compact_vocabulary=off."
                )
            return F.embedding(places, self.weight, self.padding_idx)
        known = places < count
        found = F.embedding(torch.where(known, places, 0), self.weight)
        if not len(self.rest):
            return found
        others = F.embedding(torch.where(known, 0, places - count), self.rest)
        return torch.where(known.unsqueeze(-1), found, others)

    def whole(self) -> Tensor:
        """The table as a model without this class has it, `[vocabulary, width]`."""
        table = self.weight.new_empty(self.num_embeddings, self.embedding_dim)
        table[self.used.to(table.device)] = self.weight.detach()
        table[self.unused.to(table.device)] = self.rest.detach()
        return table

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.whole()

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        key = prefix + "weight"
        if key not in state_dict:
            missing_keys.append(key)
            return
        table, expected = state_dict[key], (self.num_embeddings, self.embedding_dim)
        if tuple(table.shape) != expected:
            error_msgs.append(f"size mismatch for {key}: {tuple(table.shape)} is not {expected}")
            return
        with torch.no_grad():
            self.weight.copy_(table[self.used.to(table.device)])
            self.rest.copy_(table[self.unused.to(table.device)])


def obstacle(model: Any) -> str | None:
    """Why the embedding table of a model can't be trained by rows; None if it can."""
    if getattr(model.config, "is_encoder_decoder", False):
        return "encoder and decoder share the table, and the decoder reads more than the rows' tokens"
    try:
        table = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        table = None
    if table is None or not hasattr(table, "weight"):
        return "the model has no table of word embeddings"
    if type(table) is not nn.Embedding or table.max_norm or table.sparse or table.scale_grad_by_freq:
        return "the model's word embeddings are of a kind of their own"
    if not table.weight.requires_grad:
        return "word embeddings are not trained"
    names = [name for name, p in model.named_parameters(remove_duplicate=False) if p is table.weight]
    if len(names) > 1 or table.weight is getattr(model.get_output_embeddings(), "weight", None):
        return "the output layer is tied to the table, and reads all of it"
    return None


def compact(model: Any, used: np.ndarray) -> CompactEmbedding:
    """Put a `CompactEmbedding` for the tokens `used` in place of a model's table, which has no `obstacle`."""
    table = CompactEmbedding(model.get_input_embeddings(), used)
    model.set_input_embeddings(table)
    return table


class DecayOfTheRest(TrainerCallback):  # type: ignore[misc]
    """Lets the rows that are not trained decay as those that are: times 1 - rate x decay, in every step."""

    def __init__(self, table: CompactEmbedding) -> None:
        self.table = table

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, optimizer: Any = None, **_: Any
    ) -> None:
        for group in optimizer.param_groups:
            if any(p is self.table.weight for p in group["params"]) and group["weight_decay"]:
                with torch.no_grad():
                    self.table.rest.mul_(1 - group["lr"] * group["weight_decay"])


def saved_with_rows(optimizer: Any, saved: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state with a note of which rows of a table the states of compact ones belong to."""
    tables = {index: table for index, p in enumerate(zero.parameters(optimizer)) if (table := _table(p)) is not None}
    return {**saved, _SAVED: tables} if tables else dict(saved)


def fitted(optimizer: Any, saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved state as this optimizer takes it, whose tables may be compact or whole, whatever they were when saved."""
    given = {name: value for name, value in saved.items() if name != _SAVED}
    tables = saved.get(_SAVED, {})
    state = dict(given["state"])
    for index, parameter in enumerate(zero.parameters(optimizer)):
        before, now = tables.get(index), _table(parameter)
        if index in state and (before is not None or now is not None) and not _same(before, now):
            state[index] = {name: _other_rows(value, before, now) for name, value in state[index].items()}
    return {**given, "state": state}


def _table(parameter: Any) -> tuple[Tensor, int] | None:
    return getattr(parameter, "table", None)


def _same(one: tuple[Tensor, int] | None, other: tuple[Tensor, int] | None) -> bool:
    return one is not None and other is not None and one[1] == other[1] and torch.equal(one[0], other[0])


def _other_rows(value: Any, before: tuple[Tensor, int] | None, now: tuple[Tensor, int] | None) -> Any:
    """States of the rows `before` (None: all) as those of the rows `now`; rows that were not trained have zeros."""
    if not torch.is_tensor(value) or value.ndim != 2:
        return value
    if before is not None:
        whole = value.new_zeros(before[1], value.shape[1])
        whole[before[0]] = value
        value = whole
    return value if now is None else value[now[0]]
