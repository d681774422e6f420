"""Floating-point operations that a model's training takes: counted in a step of a few rows, for rows of any length.

A multiplication and an addition are two operations. Of each matrix with n numbers, a step takes for each token

    2 n   for the forward pass,
    2 n   for the gradients of what the matrix reads, where anything before it trains,
    2 n   for the gradients of the matrix, where it trains itself,

which is 6 n where all of a model trains (Kaplan et al. 2020, Scaling Laws for Neural Language Models, 2.1). A table
that is looked up takes none. Attention of a row of T tokens adds 4 T^2 d forward and twice that backward in each layer
of width d, causal or not (Chowdhery et al. 2022, PaLM, appendix B). Padding, what gradient checkpointing and attention
kernels compute again, norms, activations and the optimizer don't count.

This is what comes out, and not how it is computed: torch counts the operations of one forward and backward pass, so
frozen layers, adapters, heads that read one vector a row, logits at some places only, convolutions and all families are
right by themselves. Tests hold the count to the formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Work:
    """Operations of training on a row, as a polynomial of its length in tokens; the constant comes first."""

    coefficients: tuple[float, ...]

    def of(self, lengths: Sequence[int] | np.ndarray) -> float:
        """Operations of training once on rows of these lengths."""
        sizes = np.asarray(lengths, dtype=float)
        return float(sum(factor * (sizes**power).sum() for power, factor in enumerate(self.coefficients)))


def fitted(lengths: Sequence[int], counted: Sequence[float]) -> Work:
    """The polynomial through what was counted for rows of some lengths: of degree 2, or less for fewer lengths.

    Exact where a row is one sequence; where it is several (options, a source and its target) it is their mean course.
    """
    degree = min(2, len(set(lengths)) - 1)
    powers = np.vander(np.asarray(lengths, dtype=float), degree + 1, increasing=True)
    scale = powers.max(axis=0)
    found = np.linalg.lstsq(powers / scale, np.asarray(counted, dtype=float), rcond=None)[0] / scale
    return Work(tuple(map(float, found)))


def count(step: Callable[[], Any]) -> int:
    """Operations of the matrix products, convolutions and attention that run in `step`, backward passes included."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False, custom_mapping=_attention_formulas())
    with counter:
        step()
    return int(counter.get_total_flops())


def _attention_formulas() -> dict[Any, Callable[..., int]]:
    """Formulas of torch's attention kernels as they are meant here.

    Torch counts the scores that their backward passes compute again, one product in five, and does not know the CPU's.
    """
    import torch
    from torch.utils.flop_counter import flop_registry

    aten = torch.ops.aten
    flash = aten._scaled_dot_product_flash_attention
    known = [
        "_scaled_dot_product_flash_attention_backward", "_scaled_dot_product_efficient_attention_backward",
        "_scaled_dot_product_cudnn_attention_backward", "_flash_attention_backward", "_efficient_attention_backward",
    ]  # fmt: skip
    formulas = {getattr(aten, name): _once(flop_registry[getattr(aten, name)]) for name in known}
    on_cpu = aten._scaled_dot_product_flash_attention_for_cpu_backward
    formulas[on_cpu] = _once(flop_registry[aten._scaled_dot_product_flash_attention_backward])
    formulas[aten._scaled_dot_product_flash_attention_for_cpu] = _as_it_is(flop_registry[flash])
    return formulas


def _once(formula: Callable[..., int]) -> Callable[..., int]:
    def without_what_is_done_again(*arguments: Any, **named: Any) -> int:
        return formula(*arguments, **named) * 4 // 5

    without_what_is_done_again._get_raw = True  # type: ignore[attr-defined]  # the formula takes tensors itself
    return without_what_is_done_again


def _as_it_is(formula: Callable[..., int]) -> Callable[..., int]:
    def same(*arguments: Any, **named: Any) -> int:
        return formula(*arguments, **named)

    same._get_raw = True  # type: ignore[attr-defined]
    return same
