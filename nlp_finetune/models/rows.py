"""Rows of a padded batch laid end to end, longest first, and groups of them for attention.

What is moved is copied once, and its gradient is copied back: every place has one source, so nothing is ever summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_SLACK = 1.15
"""Neighbouring rows share a group while it has at most this many places for each token."""


class _Take(torch.autograd.Function):
    """`x[places]` of `[n, ...]`, where no place occurs twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.places, ctx.size = places, x.shape[0]
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _put(grad, ctx.places, ctx.size), None


class _Put(torch.autograd.Function):
    """Zeros `[size, ...]` with `x` at `places`, where no place occurs twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.places = places
        return _put(x, places, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.contiguous().index_select(0, ctx.places), None, None


def _put(x: Tensor, places: Tensor, size: int) -> Tensor:
    return x.new_zeros(size, *x.shape[1:]).index_copy_(0, places, x.contiguous())


class Group:
    """Neighbouring rows of a batch that are all seen as `longest` tokens long, `[count, longest]`.

    Their tokens are `first` to `end` of those laid end to end.
    """

    def __init__(self, lengths: Sequence[int], first: int, device: torch.device) -> None:
        self.count, self.longest = len(lengths), max(lengths)
        self.first, self.end = first, first + sum(lengths)
        self.device = device
        self.is_full: Tensor | None = None
        """Which places hold a token, `[count, longest]`; None where all do."""
        if min(lengths) < self.longest:
            places = torch.arange(self.longest, device=device)
            self.is_full = places < torch.tensor(lengths, device=device)[:, None]
            self._places = self.is_full.view(-1).nonzero()[:, 0]
        self._masks: dict[Any, Tensor | None] = {}

    def pad(self, tokens: Tensor) -> Tensor:
        """This group's part of `[all tokens, ...]` as `[count, longest, ...]`."""
        own = tokens[self.first : self.end]
        if self.is_full is not None:
            own = _Put.apply(own, self._places, self.count * self.longest)  # type: ignore[no-untyped-call]
        return own.view(self.count, self.longest, *own.shape[1:])

    def unpad(self, padded: Tensor) -> Tensor:
        """`[count, longest, ...]` as `[tokens of the group, ...]`."""
        flat = padded.reshape(self.count * self.longest, *padded.shape[2:])
        if self.is_full is None:
            return flat
        taken: Tensor = _Take.apply(flat, self._places)  # type: ignore[no-untyped-call]
        return taken

    def mask(self, dtype: torch.dtype, *, causal: bool, window: int | None) -> Tensor | None:
        """What is added to attention scores, `[count or 1, 1, longest or 1, longest]`; None if nothing is hidden.

        With `causal` no token sees later ones; with `window` none sees others that many places away or more.
        """
        key = (dtype, causal, window)
        if key not in self._masks:
            self._masks[key] = self._new_mask(dtype, causal, window)
        return self._masks[key]

    def _new_mask(self, dtype: torch.dtype, causal: bool, window: int | None) -> Tensor | None:
        window = None if window is None or window >= self.longest else window
        if self.is_full is None and not causal and window is None:
            return None
        at = torch.arange(self.longest, device=self.device)
        seen = torch.ones(1, 1, 1, self.longest, dtype=torch.bool, device=self.device)
        if self.is_full is not None:
            seen = self.is_full[:, None, None]
        if causal:
            seen = seen & (at <= at[:, None])
        if window is not None:
            seen = seen & ((at - at[:, None]).abs() < window)
        return torch.zeros(seen.shape, dtype=dtype, device=self.device).masked_fill_(~seen, torch.finfo(dtype).min)


class Rows:
    """Where the tokens of a padded batch are when its rows are laid end to end.

    `mask` is `[rows, longest]`, not 0 where a token is no padding.
    """

    def __init__(self, mask: Tensor) -> None:
        self.shape = (mask.shape[0], mask.shape[1])
        self._is_full = mask.ne(0)
        counts = mask.ne(0).sum(1)
        order = torch.argsort(counts, descending=True, stable=True)
        row, column = mask[order].nonzero(as_tuple=True)
        self.columns = column
        self.places = order[row] * self.shape[1] + column
        self.lengths = [n for n in counts[order].tolist() if n]
        self.ends = torch.nn.functional.pad(counts[order][: len(self.lengths)].cumsum(0), (1, 0)).to(torch.int32)
        """Where each row begins, and the end of the last, `[rows + 1]`."""
        self.groups = list(self._grouped(mask.device))

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return len(self.places)

    def _grouped(self, device: torch.device) -> Any:
        start = first = 0
        for end in range(1, len(self.lengths) + 1):
            own = self.lengths[start : end + 1]
            if end == len(self.lengths) or len(own) * own[0] > _SLACK * sum(own):
                group = Group(self.lengths[start:end], first, device)
                yield group
                start, first = end, group.end

    def pack(self, padded: Tensor) -> Tensor:
        """`[rows, longest, ...]` as `[1, tokens, ...]`; `[1, longest, ...]`, which all rows share, likewise."""
        if padded.shape[0] == 1 and self.shape[0] > 1:
            return padded[0].index_select(0, self.columns)[None]
        flat = padded.reshape(self.shape[0] * self.shape[1], *padded.shape[2:])
        taken: Tensor = _Take.apply(flat, self.places)  # type: ignore[no-untyped-call]
        return taken[None]

    def unpack(self, packed: Tensor) -> Tensor:
        """`[1, tokens, ...]` as `[rows, longest, ...]`, zero where there is padding."""
        put: Tensor = _Put.apply(packed[0], self.places, self.shape[0] * self.shape[1])  # type: ignore[no-untyped-call]
        return put.view(*self.shape, *packed.shape[2:])

    def mask(self, dtype: torch.dtype) -> Tensor:
        """What is added to attention scores of the padded batch, `[rows, 1, 1, longest]`."""
        hidden = ~self._is_full[:, None, None]
        return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, torch.finfo(dtype).min)

    def is_packed(self, value: Tensor) -> bool:
        """Whether a tensor is `[1, tokens, ...]`."""
        return tuple(value.shape[:2]) == (1, self.tokens)

    def is_padded(self, value: Any) -> bool:
        """Whether something is a tensor `[rows, longest, ...]`, or one that all rows share."""
        return (
            torch.is_tensor(value) and value.dim() >= 2 and tuple(value.shape[:2]) in (self.shape, (1, self.shape[1]))
        )
