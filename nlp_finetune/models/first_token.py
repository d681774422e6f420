"""The last block computed for the first token of each row alone, where the head reads no other.

Of the other tokens the last block needs keys and values; its queries, its feed-forward layer and everything else behind
attention are computed for what nothing reads. Hooks on the parts of the block cut that off: each part is given the
first token of its input, and what is added to it whole goes on as it is, because adding broadcasts. Nothing of a family
is copied here; whether it comes to the same is not looked up but tried (`fault`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nlp_finetune.models import packing, row_attention

_CLOSE = 1e-4
"""Largest difference of outputs and gradients, relative to the largest of them, that rounding explains."""
_SMALLEST = 0.01
"""Gradients are compared on the scale of the largest one times this at least: some are 0 but for rounding."""


class FirstTokenOnly:
    """The hooks on the last block of a model; they act while the model trains, or where `always` says."""

    def __init__(self, model: Any, run: Callable[[], Any]) -> None:
        """`run` runs the model on a few rows, which shows what runs behind attention.

        Raises `NotPackableError` for a model without one list of blocks, or with attention of its own kind.
        """
        self.model = model
        self.base = packing.base_of(model)
        blocks, parent = packing.blocks_of(self.base)
        if parent is not None:
            raise packing.NotPackableError("its blocks run several times")
        if not getattr(self.base, "_supports_attention_backend", False):
            raise packing.NotPackableError("it does attention in a way of its own")
        self.block: nn.Module = blocks[-1]
        self.always: bool | None = False
        self.attended = 0
        self.longest = 0
        self.before = self.base.config._attn_implementation
        if self.before not in row_attention.NAMES:
            row_attention.use(self.base)
        self.handles: list[Any] = []
        for part in self.block.modules():
            part.first_token_only = self  # type: ignore[assignment]
        try:
            behind = self._behind_attention(run)
        except packing.NotPackableError:
            self.remove()
            raise
        for part in behind:
            self.handles.append(part.register_forward_pre_hook(self._cut))
        for name, part in self.block.named_modules():
            if name.rpartition(".")[2].startswith("q"):
                self.handles.append(part.register_forward_pre_hook(self._cut_query))
                self.handles.append(part.register_forward_hook(self._stretch_query))
        self.always = None

    def _behind_attention(self, run: Callable[[], Any]) -> list[nn.Module]:
        """The parts of the block, each without parts of its own, that run behind attention."""
        found: list[nn.Module] = []

        def note(part: nn.Module, args: Any) -> None:
            if self.attended:
                found.append(part)

        leaves = [part for part in self.block.modules() if not any(True for _ in part.children())]
        handles = [part.register_forward_pre_hook(note) for part in leaves]
        self.attended = 0
        try:
            with packing.evaluating(self.model), torch.no_grad():
                run()
        finally:
            for handle in handles:
                handle.remove()
        if self.attended != 1:
            raise packing.NotPackableError(f"its last block attends {self.attended} times")
        return list(dict.fromkeys(found))

    @property
    def is_on(self) -> bool:
        """Whether passes of the model are cut now."""
        return bool(self.model.training) if self.always is None else self.always

    def remove(self) -> None:
        """Take the hooks away again."""
        for handle in self.handles:
            handle.remove()
        for part in self.block.modules():
            vars(part).pop("first_token_only", None)
        if self.before not in row_attention.NAMES:
            self.base.set_attn_implementation(self.before)

    def _cut(self, part: nn.Module, args: tuple[Any, ...]) -> Any:
        """Give a part the first token of each row, of `[rows, longest, width]`."""
        return (args[0][:, :1], *args[1:]) if self.is_on else None

    def _cut_query(self, part: nn.Module, args: tuple[Any, ...]) -> Any:
        if not self.is_on:
            return None
        self.longest = args[0].shape[1]
        return (args[0][:, :1], *args[1:])

    def _stretch_query(self, part: nn.Module, args: Any, output: Tensor) -> Any:
        """The same queries in the shape of all, which costs nothing: the family's code gives them their heads."""
        return output.expand(-1, self.longest, -1) if self.is_on else None


def fault(first: FirstTokenOnly, run: Callable[[], tuple[Tensor, Any]]) -> str | None:
    """Why a model does not come to the same with the first token alone; None if it does.

    `run` runs the model on a few rows and gives loss and outputs. Loss, logits, and the gradients of the last block
    and of what enters it are compared, without dropout: what lies before follows from them.
    """
    try:
        with packing.evaluating(first.model):
            expected, found = (_trial(first, run, only=only) for only in (False, True))
        if expected.keys() != found.keys():
            return "other parameters have gradients"
        scale = max((float(value.abs().max()) for name, value in expected.items() if name not in _SHOWN), default=0.0)
        for name, value in expected.items():
            if found[name].shape != value.shape:
                return f"{name} has another shape"
            least = 1.0 if name in _SHOWN else _SMALLEST * scale
            apart = float((found[name] - value).abs().max())
            if not apart <= _CLOSE * max(least, float(value.abs().max())):
                return f"its head reads more than the first token ({name} differs by {apart:.2g})"
    except packing.NotPackableError as error:
        return str(error)
    except packing.FAULTS as error:
        fault = str(error).partition("\n")[0] or type(error).__name__
        return f"it can't be computed for the first token alone ({fault})"
    finally:
        first.always = None
    return None


_SHOWN = ("loss", "logits")


def _trial(first: FirstTokenOnly, run: Callable[[], tuple[Tensor, Any]], *, only: bool) -> dict[str, Tensor]:
    """Loss, logits and gradients of a pass."""
    first.always = only
    entering: list[Tensor] = []

    def start(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = (args[0] if args else kwargs["hidden_states"]).detach().requires_grad_()
        entering.append(hidden)
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    with first.block.register_forward_pre_hook(start, with_kwargs=True, prepend=True), torch.enable_grad():
        loss, outputs = run()
        if len(entering) != 1:
            raise packing.NotPackableError(f"its last block runs {len(entering)} times")
        watched = {"what enters the last block": entering[0]}
        watched |= {name: p for name, p in first.block.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(loss, list(watched.values()), allow_unused=True)
    logits = outputs.get("logits", loss)
    return {
        "loss": loss.detach(), "logits": logits.detach(),
        **{name: value for name, value in zip(watched, gradients, strict=True) if value is not None},
    }  # fmt: skip
