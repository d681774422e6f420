"""Lion: the sign of an interpolated momentum (Chen et al. 2023, Symbolic Discovery of Optimization Algorithms).

torch has none, and those of bitsandbytes run on GPUs alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class Lion(Optimizer):
    """Step each weight by `lr` against the sign of `beta1 m + (1 - beta1) g`, with decoupled weight decay.

    One state tensor a weight, `m`, which then moves: `m = beta2 m + (1 - beta2) g`. Every weight moves by the
    full learning rate, so that it wants one 3 to 10 times smaller, and a weight decay as much larger, than AdamW;
    the paper's betas are (0.9, 0.99).
    """

    def __init__(
        self, params: Any, *, lr: float, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.99)
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            gradients = [p.grad for p in weights]
            for p in weights:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta = [self.state[p]["momentum"] for p in weights]
            beta1, beta2 = group["betas"]
            torch._foreach_mul_(weights, 1.0 - group["lr"] * group["weight_decay"])
            direction = torch._foreach_lerp(momenta, gradients, 1.0 - beta1)
            torch._foreach_sign_(direction)
            torch._foreach_add_(weights, direction, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1.0 - beta2)
        return loss
