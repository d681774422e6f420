"""The trained parameters of a model by groups of layers, and its head: what gradients are measured by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nlp_finetune.models.adapters import is_adapted
from nlp_finetune.models.summary import parts

if TYPE_CHECKING:
    from torch import nn


def trained_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Parameters by the name of their group of layers, in the order of the model.

    Groups are those of `summary.parts`, each block its own. A shared parameter belongs to the first that holds
    it; groups none of whose parameters trains, now or once layers have thawed, are measured as empty.
    """
    seen: set[int] = set()
    groups: dict[str, list[nn.Parameter]] = {}
    for part in parts(_plain(model)):
        own = [parameter for parameter in part.module.parameters() if id(parameter) not in seen]
        seen.update(id(parameter) for parameter in own)
        if own:
            groups[part.name] = own
    return groups


def head_of(model: nn.Module) -> nn.Module | None:
    """The last module of a model that has parameters: its head, or for want of one what comes last in its base."""
    plain = _plain(model)
    inside = {id(module) for module in plain.modules()}  # a loose parameter is a part without a module of its own
    found = [part.module for part in parts(plain) if id(part.module) in inside]
    with_parameters = [module for module in found if any(True for _ in module.parameters())]
    return with_parameters[-1] if with_parameters else None


def _plain(model: Any) -> nn.Module:
    """The model inside what adapters wrap around it."""
    plain: nn.Module = model.get_base_model() if is_adapted(model) else model
    return plain
