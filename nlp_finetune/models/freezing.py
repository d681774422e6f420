"""Which parameters stay as they are, and the blocks that run in evaluation mode because of it.

Groups of layers are those of `summary.layer_groups`: found by structure, for every family alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models.checkpoint import did_you_mean
from nlp_finetune.models.heads import shorten
from nlp_finetune.models.loading import new_parameters
from nlp_finetune.models.summary import Part, count_parameters, parts

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def freeze(
    model: PreTrainedModel,
    layers: int | None,
    patterns: Sequence[str],
    all_but_head: bool,
    *,
    say: Callable[[str], None],
) -> None:
    """Freeze parameters, in place, before the model is wrapped or given to an optimizer.

    `layers` freezes the embeddings and so many blocks, in the order of the model (the encoder's before
    the decoder's); `patterns` are globs over parameter names; `all_but_head` leaves the head and
    whatever else the checkpoint lacks. Modules that are frozen as a whole run in evaluation mode from
    here on, whatever mode the model is in: no dropout, and BatchNorm keeps its statistics.

    Raises `InputError` for more layers than there are, for a pattern that matches nothing, for a model
    without a head of its own, and where nothing is left to train.
    """
    frozen: set[str] = set()
    if layers is not None:
        frozen |= _first_layers(model, layers)
    for pattern in patterns:
        frozen |= _matching(model, pattern)
    if all_but_head:
        frozen |= _all_but_head(model)
    if not frozen:
        return
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    total, trained = count_parameters(model)
    if trained == 0:
        raise InputError("freeze: every parameter is frozen, so there is nothing left to train.")
    still = list(frozen_modules(model))
    keep_in_evaluation_mode(model, still_modules(model))
    say(
        f"frozen: {shorten([name for name, _ in still] or sorted(frozen), 4)}; "
        f"{trained:,} of {total:,} parameters trained ({trained / total:.2%})"
    )


def _first_layers(model: PreTrainedModel, layers: int) -> set[str]:
    found = list(parts(model))
    blocks = [part for part in found if part.kind == "block"]
    if layers > len(blocks):
        raise InputError(f"freeze.layers {layers}: this model ({model.config.model_type}) has {_counted(blocks)}.")
    chosen = [part for part in found if part.kind == "embeddings"] + blocks[:layers]
    return _names(model, chosen)


def _counted(blocks: Sequence[Part]) -> str:
    if not blocks:
        return "no list of blocks; use freeze.patterns"
    shared = f", which a forward pass runs {blocks[0].repeated} times" if blocks[0].repeated > 1 else ""
    return f"{len(blocks)} block{'s'[: len(blocks) > 1]}{shared}"


def _names(model: nn.Module, chosen: Collection[Part]) -> set[str]:
    """Names of the parameters of parts; one that is shared goes by its first name."""
    ids = {id(parameter) for part in chosen for parameter in part.module.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


def _matching(model: nn.Module, pattern: str) -> set[str]:
    names = [name for name, _ in model.named_parameters()]
    found = {name for name in names if fnmatchcase(name, pattern)}
    if not found:
        raise InputError(
            f"freeze.patterns {pattern}: no parameter of this model is called so. Its parameters are called like "
            f"{shorten(samples(names), 4)}.{did_you_mean(pattern, names)}"
        )
    return found


def samples(names: Sequence[str]) -> list[str]:
    """A few names from all over the model."""
    return [names[i] for i in sorted({0, len(names) // 3, 2 * len(names) // 3, len(names) - 1})]


def _all_but_head(model: PreTrainedModel) -> set[str]:
    names = {name for name, _ in model.named_parameters()}
    head = _names(model, [part for part in parts(model) if part.kind == "head"])
    # A tied output layer goes by the name of the embeddings, which are no head.
    head -= _names(model, [part for part in parts(model) if part.kind != "head"])
    if not head:
        raise InputError(
            f"freeze.except head: {type(model).__name__} has no head of its own. Use freeze.layers or freeze.patterns."
        )
    return names - head - new_parameters(model)


def frozen_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The largest modules all of whose parameters (at least one) are frozen, by name."""

    def inside(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        parameters = list(module.parameters())
        if not parameters:
            return
        if not any(parameter.requires_grad for parameter in parameters):
            yield name, module
            return
        for child, part in module.named_children():
            yield from inside(f"{name}.{child}" if name else child, part)

    yield from inside("", model)


def still_modules(model: nn.Module) -> list[nn.Module]:
    """What runs in evaluation mode because of what is frozen: `frozen_modules`, and what has no parameters before it.

    The dropout of GPT-2's embeddings is a module of its own: without it they would not be still.
    """
    still = [module for _, module in frozen_modules(model)]
    lowest = [part.module for part in parts(whole(model)) if part.kind == "embeddings"]
    held = [parameter for module in lowest for parameter in module.parameters()]
    if held and not any(parameter.requires_grad for parameter in held):
        still += [module for module in lowest if not any(True for _ in module.parameters())]
    return still


@dataclass(frozen=True)
class Level:
    """Parameters that stand at the same height of a model, with the names of the parts that hold them."""

    names: list[str]
    parameters: list[nn.Parameter]


def levels(model: PreTrainedModel, *, only: Callable[[nn.Parameter], bool] = lambda _: True) -> list[Level]:
    """A model from the top: the head with what is around it, each block, the embeddings; parameters that `only` takes.

    A model without a head of its own begins with its last block besides. A level may be empty.
    """
    found = list(parts(whole(model)))
    blocks = [part for part in found if part.kind == "block"][::-1]
    top = [part for part in found if part.kind in ("head", "norm", "pooler")]
    if not any(part.kind == "head" for part in top) and blocks:
        top.append(blocks.pop(0))
    lowest = [part for part in found if part.kind == "embeddings"]
    seen: set[int] = set()
    made = []
    # The embeddings come first where parameters are shared: a tied output layer goes with them.
    tied = {id(parameter) for part in lowest for parameter in part.module.parameters()}
    for chosen in (top, *([block] for block in blocks), lowest):
        passed = seen if chosen is lowest else seen | tied
        own = {id(p): p for part in chosen for p in part.module.parameters() if only(p) and id(p) not in passed}
        seen |= own.keys()
        holding = [part.name for part in chosen if any(id(p) in own for p in part.module.parameters())]
        made.append(Level(holding, list(own.values())))
    return made


@dataclass(frozen=True)
class Stage:
    """What `freeze.layers` is while a model trains from the top down to some level, and what that level adds.

    `frozen` is None where the embeddings train too.
    """

    frozen: int | None
    added: list[str]


def stages(model: PreTrainedModel, *, floor: int | None = None) -> list[Stage]:
    """A model's levels from the top, one stage each; layers up to `floor` never train.

    Raises `InputError` for a model without a list of blocks, and for a floor above all of them.
    """
    made = levels(model)
    if len(made) < 3:
        raise InputError(f"freeze.until: {_counted([])}: {type(model).__name__} trains as a whole or not at all.")
    frozen = [len(made) - 2 - number for number in range(len(made))]
    found = [Stage(n if n >= 0 else None, level.names) for n, level in zip(frozen, made, strict=True)]
    if floor is not None:
        if floor > frozen[0]:
            raise InputError(f"freeze.layers {floor}: with freeze.until at most {frozen[0]}, which is what begins.")
        found = [stage for stage in found if stage.frozen is not None and stage.frozen >= floor]
    return found


def whole(model: Any) -> Any:
    """The model inside the wrapper of adapters, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def thaw_groups(model: PreTrainedModel) -> list[tuple[str, list[nn.Parameter]]]:
    """What trains, by groups of layers from the top; each group has a name."""
    found = levels(model, only=lambda parameter: parameter.requires_grad)
    return [(shorten(level.names, 3), level.parameters) for level in found if level.parameters]


def keep_in_evaluation_mode(model: nn.Module, modules: Sequence[nn.Module]) -> None:
    """Put modules into evaluation mode before every forward pass: engines call `train()` on the whole model.

    The sequence may change later on: it is read before each pass.
    """

    def settle(*_: Any) -> None:
        for module in modules:
            if module.training:
                module.eval()

    model.register_forward_pre_hook(settle)
    settle()
