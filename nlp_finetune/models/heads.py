"""New weights: which they are, how they are drawn, and the line that says so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models.weights import Loaded, backbone_names

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

DRAWN_BY = {
    "default": "the model's own initialisation",
    "xavier": "xavier_uniform",
    "he": "kaiming_normal",
    "normal": "normal",
    "orthogonal": "orthogonal",
    "zero": "last layer zero",
}


def head_names(model: PreTrainedModel) -> set[str]:
    """Names of the parameters outside the model's base."""
    return {name for name, _ in model.named_parameters()} - backbone_names(model)


def draw(model: PreTrainedModel, names: Collection[str], *, head_init: str, seed: int) -> None:
    """Draw the named parameters anew; all others stay as they are.

    Matrices are drawn as `head_init` says and biases are zero; whatever else a head has (the scale
    of a norm) starts as the model's own code wants it. `zero` means the last matrix only, because
    two zero matrices in a row have no gradient. The same seed gives the same values whatever was
    drawn before, and leaves the global generator untouched.
    """
    import torch

    if head_init not in DRAWN_BY:
        raise InputError(f"model.head_init {head_init}: use one of {', '.join(DRAWN_BY)}.")
    chosen = [(name, p) for name, p in model.named_parameters() if name in names]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        _draw_as_the_model_does(model, names)
        if head_init == "default":
            return
        matrices = [parameter for _, parameter in chosen if parameter.dim() >= 2]
        for matrix in matrices[-1:] if head_init == "zero" else matrices:
            _initialiser(head_init, model.config)(matrix)
        for name, parameter in chosen:
            if name.endswith("bias"):
                parameter.zero_()


def _initialiser(head_init: str, config: Any) -> Callable[[torch.Tensor], Any]:
    from torch.nn import init

    std = getattr(config, "initializer_range", None) or 0.02
    table: dict[str, Callable[[torch.Tensor], Any]] = {
        "xavier": init.xavier_uniform_,
        "he": lambda weight: init.kaiming_normal_(weight, nonlinearity="relu"),
        "normal": lambda weight: init.normal_(weight, std=std),
        "orthogonal": init.orthogonal_,
        "zero": init.zeros_,
    }
    return table[head_init]


def _draw_as_the_model_does(model: PreTrainedModel, names: Collection[str]) -> None:
    """Run transformers' own initialisation for these parameters only.

    It skips what carries its flag, and some families initialise from a module further up, so the
    flag is cleared on the parameters and on every module above them.
    """
    above = {""}
    for name in names:
        parts = name.split(".")[:-1]
        above.update(".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        tensor._is_hf_initialized = name not in names
    for name, module in model.named_modules():
        module._is_hf_initialized = name not in above
    model.initialize_weights()


def output_layer(model: PreTrainedModel) -> tuple[str, torch.nn.Linear] | None:
    """Name and module of the head's last linear layer with one row per label; None if it has none."""
    import torch

    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module.out_features == model.config.num_labels
        and f"{name}.weight" in head_names(model)
    ]
    return layers[-1] if layers else None


def start_at(model: PreTrainedModel, bias: Sequence[float], *, new: Collection[str]) -> bool:
    """Set the bias of the output layer, `[labels]`, where it has just been drawn; whether any was.

    A row that was taken over from an old head, and so is not zero, keeps its bias.
    """
    import torch

    found = output_layer(model)
    if found is None or found[1].bias is None or f"{found[0]}.bias" not in new:
        return False
    with torch.no_grad():
        drawn = found[1].bias == 0
        found[1].bias[drawn] = torch.tensor(bias, dtype=found[1].bias.dtype)[drawn]
    return bool(drawn.any())


def describe(loaded: Loaded, new: Collection[str], *, head_init: str, kept_values: int) -> str:
    """One line about new weights; `kept_values` of them were taken over from an old head after all."""
    import torch

    model = loaded.model
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    backbone = backbone_names(model)
    head = [name for name in sizes if name in new and name not in backbone]
    pooler = [name for name in sizes if name in new and name in backbone]
    total = sum(sizes[name] for name in backbone)
    share = 100 * (1 - sum(sizes[name] for name in pooler) / total)
    # Rounding must not turn a gap into "100 %".
    percent = "100 %" if not pooler else f"{min(share, 99.99):.4g} %"
    loaded_line = f"backbone {percent} loaded"
    if pooler:
        where = sorted({name.rpartition(".")[0] for name in pooler})
        loaded_line += f" ({', '.join(where)} is not in the checkpoint and starts anew)"
    if not head:
        return f"{'head and ' if sizes.keys() - backbone else ''}{loaded_line}"
    modules = dict(model.named_modules())
    layers = [name.removesuffix(".weight") for name in head if name.endswith(".weight")]
    linear = [layer for layer in layers if isinstance(modules[layer], torch.nn.Linear)]
    chain = [modules[linear[0]].in_features, *(modules[layer].out_features for layer in linear)] if linear else []
    count = sum(sizes[name] for name in head) - kept_values
    what = f"new head {'->'.join(map(str, chain))} ({', '.join(linear or head)})".replace("  ", " ")
    return f"{what}, {DRAWN_BY[head_init]}, {count:,} parameters; {loaded_line}"


def shorten(names: Sequence[str], most: int = 5) -> str:
    """Some names for a message: all, or the first few and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
