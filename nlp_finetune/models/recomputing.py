"""Gradient checkpointing: what blocks keep for the backward pass is computed again there, which saves memory.

Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost; transformers' implementation, block by block. Torch's
non-reentrant kind is used, which needs no input that asks for a gradient: frozen embeddings and adapters train right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models.adapters import is_adapted

if TYPE_CHECKING:
    from torch import nn


def is_supported(model: nn.Module) -> bool:
    """Whether the model's family can do it."""
    return bool(getattr(_plain(model), "supports_gradient_checkpointing", False))


def check_supported(model: nn.Module) -> None:
    """Raise `InputError` where the family can't."""
    if not is_supported(model):
        plain = _plain(model)
        kind = getattr(getattr(plain, "config", None), "model_type", type(plain).__name__)
        raise InputError(
            f"train.gradient_checkpointing on: {kind} ({type(plain).__name__}) cannot compute its blocks again. "
            "Leave it at auto or off, and use a smaller train.micro_batch_size."
        )


def turn_on(model: nn.Module) -> None:
    """Compute blocks again in the backward pass, with the same dropout, from now on."""
    plain = _plain(model)
    plain.activation_checkpointing_enable({"use_reentrant": False})
    # Meant for the reentrant kind: it would send gradients through frozen blocks, for nothing.
    plain.disable_input_require_grads()


def turn_off(model: nn.Module) -> None:
    """Keep everything for the backward pass again."""
    _plain(model).activation_checkpointing_disable()


def _plain(model: Any) -> Any:
    return model.get_base_model() if is_adapted(model) else model
