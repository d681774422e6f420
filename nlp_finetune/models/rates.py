"""How fast each parameter learns: factors of the learning rate by height in the model and by name.

Sources: Howard and Ruder 2018, Universal Language Model Fine-tuning for Text Classification (discriminative
fine-tuning); Clark et al. 2020, ELECTRA (layer-wise decay of the rate).
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models.checkpoint import did_you_mean
from nlp_finetune.models.freezing import levels, samples, whole
from nlp_finetune.models.heads import shorten
from nlp_finetune.models.summary import parts

if TYPE_CHECKING:
    from torch import nn


def factors(
    model: Any, *, layer_decay: float = 1.0, head_multiplier: float = 1.0, patterns: Mapping[str, float] | None = None
) -> dict[int, float]:
    """Factor of the learning rate of each parameter that trains, by its `id`.

    The head and what is around it (pooler, last norm) have the full rate, each block from the top down `layer_decay`
    times that of the one above, the embeddings the least; `head_multiplier` is for the head alone. The
    factors of all `patterns` (globs over parameter names) that match come on top.

    Raises `InputError` for a pattern that matches nothing that trains, and for a `head_multiplier` where the
    model has no head of its own.
    """
    found = {id(p): layer_decay**depth for depth, level in enumerate(levels(model)) for p in level.parameters}
    if head_multiplier != 1.0:
        for key in _head(model):
            found[key] *= head_multiplier
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for pattern, factor in (patterns or {}).items():
        for name in _matching(model, pattern, trained):
            found[id(trained[name])] = found.get(id(trained[name]), 1.0) * factor
    return {id(p): found.get(id(p), 1.0) for p in trained.values()}


def _head(model: Any) -> set[int]:
    """The parameters of the head that are not the embeddings too."""
    kinds: dict[bool, set[int]] = {True: set(), False: set()}
    for part in parts(whole(model)):
        kinds[part.kind == "head"].update(id(parameter) for parameter in part.module.parameters())
    head = kinds[True] - kinds[False]
    if not head:
        raise InputError(
            f"optim.head_multiplier: {type(whole(model)).__name__} has no head of its own. Use optim.rates with the "
            "names of what is to learn faster."
        )
    return head


def _matching(model: nn.Module, pattern: str, trained: Mapping[str, nn.Parameter]) -> list[str]:
    found = [name for name in trained if fnmatchcase(name, pattern)]
    if found:
        return found
    names = [name for name, _ in model.named_parameters()]
    if any(fnmatchcase(name, pattern) for name in names):
        raise InputError(f"optim.rates {pattern}: all parameters that are called so are frozen.")
    raise InputError(
        f"optim.rates {pattern}: no parameter of this model is called so. Its parameters are called like "
        f"{shorten(samples(list(trained)), 4)}.{did_you_mean(pattern, names)}"
    )
