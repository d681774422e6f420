"""A backbone that torch compiles for training: fewer and larger kernels, and on a GPU each pass replayed as one graph.

It is for GPUs that wait for Python between small kernels. A graph is recorded for one shape, so shapes have to be
few: what enters the backbone is padded to one of a few lengths, and its output is cut again, so that heads and losses
see the batch that they always see. Evaluation, and micro batches of another number of rows, run as ever.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.errors import InputError
from nlp_finetune.models import packing

_LENGTHS = 6
"""Most lengths that are compiled: each takes a while, once."""
_MULTIPLE = 8
"""Tensor cores take lengths that this divides."""
_MOST_RECOMPILED = 64
"""Shapes that torch compiles of one function before it gives up; more than come about here."""


class Compiled:
    """Takes the place of the forward pass of a model's backbone; `say` is told of each new shape."""

    def __init__(self, model: Any, *, longest: int, say: Callable[[str], None]) -> None:
        """`longest` is the length of the longest row. Micro batches as large as the first one are compiled.

        Raises `NotPackableError` for an encoder with a decoder.
        """
        self.base = packing.base_of(model)
        config = getattr(self.base, "config", None)
        if getattr(config, "is_encoder_decoder", False):
            raise packing.NotPackableError("an encoder and a decoder have rows of two kinds")
        self.longest, self.say = longest, say
        self.rows: int | None = None
        self.padding = getattr(config, "pad_token_id", None) or 0
        self.step = -(-longest // (_LENGTHS * _MULTIPLE)) * _MULTIPLE
        self.plain: Callable[..., Any] = self.base.forward
        self.names = list(inspect.signature(self.plain).parameters)
        self.on_gpu = next(self.base.parameters()).device.type == "cuda"
        self.seen: set[int] = set()
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_RECOMPILED)
        mode = "reduce-overhead" if self.on_gpu else None
        self.compiled = torch.compile(self.plain, dynamic=False, mode=mode)
        self.base.forward = self

    def padded_length(self, length: int) -> int:
        """The length that rows of a batch get that are `length` long as they come."""
        return max(length, min(-(-length // self.step) * self.step, self.longest))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the backbone gives."""
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        shown = next((value for value in given.values() if torch.is_tensor(value)), None)
        trains = self.base.training and torch.is_grad_enabled()
        if not trains or shown is None:
            return self.plain(*args, **kwargs)
        self.rows = self.rows or len(shown)
        if len(shown) != self.rows:
            return self.plain(*args, **kwargs)
        is_text = torch.is_tensor(given.get("input_ids"))
        length = shown.shape[1] if is_text else 0
        padded = self.padded_length(length) if is_text else 0
        if padded not in self.seen:
            self.seen.add(padded)
            self.say(
                f"compile: {self.rows} rows" + (f" of {padded} tokens" if padded else "") + "; it takes a while, once"
            )
        if self.on_gpu:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            found = self.compiled(**self._longer(given, length, padded))  # type: ignore[no-untyped-call]
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"train.compile on: torch can't compile {type(self.base).__name__} here: {reason}. Leave it off."
            ) from error
        return found if padded == length else _shorter(found, (self.rows, padded), length)

    def _longer(self, given: dict[str, Any], length: int, padded: int) -> dict[str, Any]:
        """The arguments, with padding behind the rows of each that has one value (or vector) a token."""
        if padded == length:
            return given
        if given.get("attention_mask") is None:
            given = {**given, "attention_mask": torch.ones_like(given["input_ids"])}

        def longer(name: str, value: Any) -> Any:
            if not torch.is_tensor(value) or value.dim() < 2 or value.shape[1] != length:
                return value
            fill = self.padding if name == "input_ids" else 0
            return F.pad(value, (*[0, 0] * (value.dim() - 2), 0, padded - length), value=fill)

        return {name: longer(name, value) for name, value in given.items()}


def _shorter(found: Any, shape: tuple[int, int], length: int) -> Any:
    """An output whose tensors `[rows, padded, width]` are cut to `[rows, length, width]`."""
    if torch.is_tensor(found):
        # What is pooled is `[rows, width]`, and attention `[rows, heads, ...]`: either number may be that of tokens.
        return found[:, :length] if found.dim() == 3 and tuple(found.shape[:2]) == shape else found
    if isinstance(found, tuple):
        return tuple(_shorter(part, shape, length) for part in found)
    if isinstance(found, dict):  # transformers' outputs: their fields are set one by one
        for name, value in list(found.items()):
            found[name] = _shorter(value, shape, length)
    return found


class OwnGradients(TrainerCallback):  # type: ignore[misc]
    """Keeps the gradients of a step's micro batches where the next replay of a graph does not write."""

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.clone()


def compiler() -> str | None:
    """Path of the C++ compiler that torch's compiled code needs; None where there is none."""
    named = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, [named] if named else ["c++", "g++", "clang++"])), None)
