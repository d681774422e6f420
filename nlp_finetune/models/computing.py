"""Number formats of inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def in_bf16(model: torch.nn.Module, device: torch.device) -> None:
    """Let a model's forward passes compute in bf16 from now on, as mixed precision does in training.

    Weights stay in fp32, norms and softmax are computed in fp32 (torch.autocast), and what comes out is
    fp32 again, so that scores are compared and written as always. Scores move by some thousandths.
    """
    from accelerate.utils import convert_outputs_to_fp32

    forward: Callable[..., Any] = model.forward

    def mixed(*arguments: Any, **named: Any) -> Any:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return forward(*arguments, **named)

    model.forward = convert_outputs_to_fp32(mixed)
