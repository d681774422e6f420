"""Which layers of a model get an adapter and which modules are trained whole beside it, found by structure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from nlp_finetune.errors import InputError
from nlp_finetune.models.checkpoint import did_you_mean
from nlp_finetune.models.heads import head_names, shorten
from nlp_finetune.models.summary import block_lists

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def adaptable(model: nn.Module) -> dict[str, nn.Module]:
    """Layers that peft can adapt, by name: linear ones, GPT-2's transposed ones, convolutions of images."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Conv2d | Conv1D)}


def automatic(model: PreTrainedModel, *, whole: Collection[str]) -> list[str]:
    """Every adaptable layer in the blocks of the backbone; what is before and behind them stays frozen.

    A backbone without a list of blocks (torchvision's ResNets) gets adapters everywhere but in its
    first layer. Modules of `whole` are trained whole and get none.
    """
    base = model.base_model
    prefix = next((f"{name}." for name, part in model.named_modules() if part is base and name), "")
    layers = [name for name in adaptable(model) if name.startswith(prefix) and not _inside(name, whole)]
    blocks = [f"{prefix}{name}." for name, _ in block_lists(base)]
    return [name for name in layers if name.startswith(tuple(blocks))] if blocks else layers[1:]


def chosen(model: PreTrainedModel, ends: Sequence[str], *, whole: Collection[str]) -> list[str]:
    """Adaptable layers whose names end (from a dot on) in one of `ends`, modules of `whole` left out.

    Raises `InputError` for an end that no layer has.
    """
    layers = [name for name in adaptable(model) if not _inside(name, whole)]
    found = {end: [name for name in layers if f".{name}".endswith(f".{end}")] for end in ends}
    for end, names in found.items():
        if not names:
            last = list(dict.fromkeys(name.rpartition(".")[2] for name in layers))
            raise InputError(
                f"lora.targets {end}: no layer of this model is called so. Its layers end in "
                f"{shorten(last, 12)}.{did_you_mean(end, last)}"
            )
    wanted = {name for names in found.values() for name in names}
    return [name for name in layers if name in wanted]


def check_ranks(patterns: Mapping[str, int], targets: Sequence[str]) -> None:
    """Raise `InputError` for a key of `lora.rank_pattern` that names none of the targets."""
    for pattern in patterns:
        try:
            hit = any(re.match(rf"(.*\.)?({pattern})$", name) for name in targets)
        except re.error as error:
            raise InputError(f"lora.rank_pattern {pattern}: not a regular expression ({error}).") from error
        if not hit:
            raise InputError(
                f"lora.rank_pattern {pattern}: none of the layers with an adapter is called so; "
                f"they are {shorten(targets, 4)}."
            )


def as_pattern(names: Sequence[str], model: nn.Module) -> str | list[str]:
    """The names as one short regular expression where that matches nothing else, or else as they are."""
    numbered = list(dict.fromkeys(re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", re.escape(name)) for name in names))
    levels = zip(*(name.split(r"\.")[:-1] for name in numbered), strict=False)
    common = "".join(rf"{level[0]}\." for level in takewhile(lambda level: len(set(level)) == 1, levels))
    pattern = f"{common}({'|'.join(name.removeprefix(common) for name in numbered)})"
    same = {name for name, _ in model.named_modules() if re.fullmatch(pattern, name)} == set(names)
    return pattern if same else list(names)


def trained_whole(model: PreTrainedModel, new: Collection[str]) -> list[str]:
    """Modules that no adapter can stand in for: the head, whatever else is `new`, and BatchNorm.

    New parameters are not in the checkpoint, so the adapter must hold them. BatchNorm moves its
    statistics while it trains. Raises `InputError` for a new parameter that belongs to no such module
    and does not start as a constant: whoever loads the adapter would draw it anew.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    wanted = set(new) | _head(model)
    values = dict(model.named_parameters())
    # With tied weights under all their names: a module that holds one can't be copied without untying it.
    everything = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    modules = []
    for name in sorted(wanted):
        owner = _outermost_module(model, name, wanted, everything)
        if owner is not None:
            modules.append(owner)
        elif not values[name].is_meta and bool(values[name].min() != values[name].max()):
            raise InputError(f"{name} is not in the checkpoint, and an adapter can't hold it. Use lora=null.")
    found = list(dict.fromkeys(modules))
    norms = [name for name, part in model.named_modules() if isinstance(part, _BatchNorm)]
    return [*found, *(name for name in norms if not _inside(name, found))]


def _head(model: PreTrainedModel) -> set[str]:
    """Parameters of the task's head; none where it is the vocabulary's (a language model) or there is none."""
    from torch import nn

    if model.get_output_embeddings() is not None:
        return set()
    outside = head_names(model)
    if outside:
        return outside
    # Few models hold their head inside the base: T5 for question answering, wrapped torchvision models.
    linear = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    is_output = linear and linear[-1][1].out_features == model.config.num_labels
    return {f"{linear[-1][0]}.{part}" for part, _ in linear[-1][1].named_parameters()} if is_output else set()


def _outermost_module(
    model: PreTrainedModel, parameter: str, wanted: Collection[str], everything: Sequence[str]
) -> str | None:
    """The largest module around a parameter that holds wanted parameters only; None if there is none."""
    from torch import nn

    parts = parameter.split(".")
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        is_callable = not isinstance(model.get_submodule(name), nn.ModuleList | nn.ModuleDict)
        if is_callable and all(other in wanted for other in everything if other.startswith(f"{name}.")):
            return name
    return None


def _inside(name: str, modules: Collection[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
