"""Dropout on CPUs by cheap random bits: torch's own draws a number of its slow generator for every element.

A mask compares 16 random bits an element with the probability, which is kept to 1/65536. The bits come from torch's own
generator, four elements to a number, so that seeds and checkpoints hold for it as they do for torch's dropout: the
same seed gives the same masks, and a run that goes on goes on with the masks that it would have had.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_LEVELS = 65536


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        bits = _bits(x.numel()).view(x.shape)
        # Compared into the type of `x`: a mask of truth values would be converted in each multiplication.
        kept = torch.ge(bits, threshold - _LEVELS // 2, out=torch.empty_like(bits, dtype=x.dtype))
        # Scaled apart: in half precision a mask of 1 / (1 - p) would be off by up to 0.4 %.
        ctx.scale = _LEVELS / (_LEVELS - threshold)
        ctx.save_for_backward(kept)
        return torch.mul(x, kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return torch.mul(grad, kept).mul_(ctx.scale), None


def _bits(count: int) -> Tensor:
    """Random numbers from -32768 to 32767, `[count]`, int16."""
    words = torch.empty(-(-count // 4), dtype=torch.int64)
    return words.random_(-(2**63), None).view(torch.int16)[:count]


def fast_dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element of `x` with probability `p`, kept to 1/65536, and scale the others by 1 / (1 - p)."""
    threshold = round(p * _LEVELS)
    if threshold == 0:
        return x
    if threshold >= _LEVELS:
        return torch.zeros_like(x)
    found: Tensor = _Dropout.apply(x, threshold)  # type: ignore[no-untyped-call]
    return found


class FastDropout(nn.Dropout):
    """A drop-in for `nn.Dropout` on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        return fast_dropout(input, self.p) if self.training and self.p > 0 else input


def put_fast_dropout(model: nn.Module) -> int:
    """Make every `nn.Dropout` of a model that drops anything a `FastDropout`; gives their number.

    The modules stay the objects that they are: what is kept in evaluation mode beside frozen layers stays so.
    """
    found = [module for module in model.modules() if type(module) is nn.Dropout and module.p > 0]
    for module in found:
        module.__class__ = FastDropout
    return len(found)
