"""Batches without padding: from the first block of a model to its last, rows are laid end to end.

Embeddings, head and loss see the padded batch that they always see; hooks pack what enters the blocks and unpack what
leaves them, so that nothing of a family is copied here and no task knows. Attention stays within rows:

    through transformers' interface   the family's attention calls `row_attention.attention`
    around the module                 of a family that does not use the interface, attention alone sees padding again

Whether a family can do it is not looked up but tried: `fault` compares the hidden states of a few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nlp_finetune.models import freezing, row_attention
from nlp_finetune.models.row_attention import Current
from nlp_finetune.models.rows import Rows
from nlp_finetune.models.summary import block_lists

_CLOSE = 1e-4
"""Largest difference of hidden states, relative to the largest of them, that rounding explains."""


FAULTS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)
"""What a model raises that does not take what it is given."""


class NotPackableError(Exception):
    """Why the batches of a model can't do without padding."""


class Packing:
    """The hooks that pack and unpack; they act in training mode, or where `always` says."""

    def __init__(self, model: Any, *, but_last: bool = False) -> None:
        """With `but_last` the last block sees padding: little of it is computed for all tokens (`first_token`).

        Raises `NotPackableError` for a model without one list of blocks to pack for.
        """
        self.base = base_of(model)
        found, self.parent = blocks_of(self.base)
        self.but_last = but_last
        self.blocks = list(found)[: -1 if but_last else None]
        if not self.blocks:
            raise NotPackableError("it has a single block")
        self.rows: Rows | None = None
        """How the last batch was laid out."""
        self.always: bool | None = None
        self.used = False
        """Whether any batch was packed so far."""
        self.handles = [self.base.register_forward_pre_hook(self._begin, with_kwargs=True)]
        if getattr(self.base, "_supports_attention_backend", False):
            if self.base.config._attn_implementation not in row_attention.NAMES:
                row_attention.use(self.base)
            self._hook_blocks(rest=True)
        else:
            self._hook_blocks(rest=False)
            for block in self.blocks:
                attention = _attention_of(block)
                self.handles.append(attention.register_forward_pre_hook(self._unpack_input, with_kwargs=True))
                self.handles.append(attention.register_forward_hook(self._pack_output))

    def _hook_blocks(self, *, rest: bool) -> None:
        def pack(module: nn.Module, args: Any, kwargs: Any) -> Any:
            return self._pack_input(args, kwargs, rest=rest)

        for block in self.blocks:
            self.handles.append(block.register_forward_pre_hook(pack, with_kwargs=True))
        last = self.blocks[-1] if self.parent is None else self.parent
        self.handles.append(last.register_forward_hook(self._unpack_output))

    def remove(self) -> None:
        """Take the hooks away again."""
        for handle in self.handles:
            handle.remove()
        Current.rows = Current.unpacked = None

    def _begin(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Find out how this batch is laid out; it stays known until the next, for layers that are computed again."""
        mask = kwargs.get("attention_mask")
        wanted = module.training if self.always is None else self.always
        Current.rows = Current.unpacked = self.rows = None
        if wanted and mask is not None and mask.dim() == 2 and not bool(mask.ne(0).all()):
            Current.rows = self.rows = Rows(mask)
            self.used = True

    def _pack_input(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, rest: bool) -> Any:
        rows = Current.rows
        if rows is None:
            return None

        def packed(value: Any) -> Any:
            if isinstance(value, tuple | list):
                return type(value)(packed(part) for part in value)
            return rows.pack(value) if rows.is_padded(value) else value

        hidden = args[0] if args else kwargs["hidden_states"]
        if tuple(hidden.shape[:2]) == rows.shape:
            hidden = rows.pack(hidden)
        # What goes along with the hidden states (rotations by position) is packed with them.
        others = {name: packed(value) if rest else value for name, value in kwargs.items()}
        if not args:
            return args, {**others, "hidden_states": hidden}
        return (hidden, *(packed(value) if rest else value for value in args[1:])), others

    def _unpack_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if Current.rows is None:
            return None
        if args:
            return (Current.rows.unpack(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": Current.rows.unpack(kwargs["hidden_states"])}

    def _pack_output(self, module: nn.Module, args: Any, output: Any) -> Any:
        return output if Current.rows is None else _changed(output, Current.rows.pack)

    def _unpack_output(self, module: nn.Module, args: Any, output: Any) -> Any:
        rows = Current.rows
        if rows is None:
            return output
        if self.but_last:
            Current.rows, Current.unpacked = None, rows
        return _changed(output, lambda x: rows.unpack(x) if rows.is_packed(x) else x)


def _changed(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a module gives, its hidden states changed."""
    if torch.is_tensor(output):
        return change(output)
    if isinstance(output, tuple):
        return (change(output[0]), *output[1:])
    output.last_hidden_state = change(output.last_hidden_state)
    return output


def base_of(model: Any) -> Any:
    """The backbone of a model, inside wrappers of adapters."""
    inner = freezing.whole(model)
    return inner.base_model


def blocks_of(base: Any) -> tuple[nn.ModuleList, Any]:
    """The blocks of a backbone, and what holds them if each runs several times."""
    config = getattr(base, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise NotPackableError("an encoder and a decoder have rows of two kinds")
    lists = list(block_lists(base))
    if len(lists) != 1:
        raise NotPackableError(f"{len(lists)} lists of blocks where one is expected")
    name, blocks = lists[0]
    runs = getattr(config, "num_hidden_layers", len(blocks))
    if runs == len(blocks):
        return blocks, None
    holder = name.rpartition(".")[0]
    if not holder:
        raise NotPackableError("its blocks run several times, and nothing holds them")
    return blocks, base.get_submodule(holder)


def _attention_of(block: nn.Module) -> nn.Module:
    for name, part in block.named_children():
        if "attn" in name or "attention" in name:
            return part
    raise NotPackableError("no attention is found in its blocks")


def fault(packing: Packing, run: Callable[[], Any]) -> str | None:
    """Why batches packed so are not the same to a model as padded ones; None if they are.

    `run` runs the model on rows of different lengths.
    """

    def states(*, packs: bool) -> Tensor:
        packing.always = packs
        found = last_states(packing.base, run)
        if packs and packing.rows is None:
            raise NotPackableError("its backbone is not given the mask by name")
        return found if packing.rows is None else packing.rows.pack(found)

    try:
        padded, packed = states(packs=False), states(packs=True)
        rows = packing.rows
        assert rows is not None
        return difference(rows.pack(padded), packed)
    except (NotPackableError, *FAULTS) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    finally:
        packing.always = None


def last_states(base: nn.Module, run: Callable[[], Any]) -> Tensor:
    """The last hidden states that a backbone gives while `run` runs, without dropout."""
    with torch.no_grad(), evaluating(base), _kept(base) as kept:
        run()
    return kept[-1]


def difference(one: Tensor, other: Tensor) -> str | None:
    """How far hidden states are apart, where it is more than rounding."""
    apart = float((one - other).abs().max())
    return None if apart <= _CLOSE * max(1.0, float(one.abs().max())) else f"hidden states differ by {apart:.2g}"


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout; every part goes back to the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _kept(base: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the last hidden states that a backbone gives within the block."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        kept.append(output[0])

    handle = base.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()
