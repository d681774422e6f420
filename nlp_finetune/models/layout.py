"""How convolutions lie in memory: the channels of a pixel side by side (channels last), or one plane a channel.

Shapes stay `[rows, channels, height, width]` in both; strides differ, and with them which kernels torch takes. What is
saved is contiguous as always.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def has_convolutions(model: nn.Module) -> bool:
    """Whether a model convolves images."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def pays(device: torch.device, precision: str) -> bool:
    """Whether channels last is the faster layout: on a CPU, and on a GPU where tensor cores get half precision."""
    return device.type == "cpu" or (device.type == "cuda" and precision in ("bf16", "fp16"))


def arrange(model: nn.Module, *, channels_last: bool) -> None:
    """Let a model's convolutions run in that layout, whatever the layout of the images that it is given.

    The parameters stay the same objects. Call it before an optimizer or DDP sees them: their tensors take its strides.
    """
    if not channels_last:
        model.register_forward_pre_hook(_contiguous, with_kwargs=True)
        return
    # Images come with the channels of a pixel side by side, as they were decoded.
    named = list(model.named_parameters())
    dora = any(".lora_magnitude_vector." in name for name, _ in named)
    for name, weight in named:
        # peft's DoRA reads its own two matrices as if they were contiguous; those of 1 x 1 pixels are, either way.
        if weight.ndim == 4 and not (dora and ".lora_" in name and max(weight.shape[2:]) > 1):
            weight.data = weight.data.to(weight.device, weight.dtype, memory_format=torch.channels_last)


def _contiguous(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return inputs, {name: value.contiguous() if torch.is_tensor(value) else value for name, value in named.items()}
