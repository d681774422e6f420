"""Logits of a language model at some places only: those that nothing is asked of cost as much as the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextmanager
def logits_at(model: Any, places: torch.Tensor) -> Iterator[None]:
    """Within the block `logits` are `[places that are true, vocabulary]` and not `[rows, length, vocabulary]`.

    `places` is `[rows, length]`. The matrix that makes logits is most of what a small model computes
    and keeps in memory. It is given less to read, through a hook, so that it works for every family; where
    a model reshapes what it reads, or has no such matrix, all logits are made.
    """
    inner = getattr(model, "module", model)  # what DistributedDataParallel wraps
    matrix = getattr(inner, "get_output_embeddings", lambda: None)()
    if matrix is None:
        yield
        return

    def choose(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (inputs[0][places], *inputs[1:]) if inputs[0].shape[:2] == places.shape else None

    hook = matrix.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        hook.remove()
