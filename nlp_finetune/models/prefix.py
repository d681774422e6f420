"""The frozen beginning of a model: found by structure, run once for each row, and passed over from then on.

While the first blocks of a model are frozen, and run in evaluation mode, what they make of a row never changes.
A `Prefix` says where training starts; `reach` runs the model up to there, and inside `passed_over` the model
starts from there. Both go through the forward methods of the model's own modules: no model code stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from nlp_finetune.models.freezing import whole
from nlp_finetune.models.summary import Part, parts

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Prefix:
    """A frozen beginning: `last` is the module whose output training starts from, `before` what runs before it.

    `field` is the part of the output that is kept where `last` is the whole base model, whose outputs have names.
    `blocks` of `of` blocks are frozen.
    """

    name: str
    last: nn.Module
    before: tuple[nn.Module, ...]
    blocks: int
    of: int
    field: str | None = None

    @property
    def described(self) -> str:
        """The frozen blocks in words."""
        return f"{self.blocks} of {self.of} blocks"

    def modules(self) -> list[nn.Module]:
        """Everything that is passed over."""
        return [*self.before, self.last]


def find(model: Any) -> list[Prefix]:
    """The frozen beginnings of a model that training could start behind, the longest first; none where none is.

    The embeddings and at least one block must be frozen. Behind the whole base model there is one for each of its
    outputs, named by the caller (`field`); the other ends with the last frozen block.
    """
    inner = whole(model)
    found = [part for part in parts(inner) if any(True for _ in part.module.parameters())]
    blocks = [part for part in found if part.kind == "block"]
    lowest = [part for part in found if part.kind == "embeddings"]
    frozen = list(takewhile(_is_frozen, blocks))
    if not frozen or not all(map(_is_frozen, lowest)):
        return []
    made = []
    base = getattr(inner, "base_model", inner)
    if base is not inner and not any(p.requires_grad for p in base.parameters()):
        made.append(Prefix(inner.base_model_prefix or "base", base, (), len(blocks), len(blocks)))
    if all(block.repeated == 1 for block in blocks):
        # What holds parameters itself is wrapped for counting, and never called.
        called = {id(module) for module in inner.modules()}
        before = [part.module for part in [*lowest, *frozen[:-1]] if id(part.module) in called]
        made.append(Prefix(frozen[-1].name, frozen[-1].module, tuple(before), len(frozen), len(blocks)))
    return made


def _is_frozen(part: Part) -> bool:
    return not any(parameter.requires_grad for parameter in part.module.parameters())


class _Reached(Exception):
    """Ends a forward pass behind the prefix."""


def reach(prefix: Prefix, run: Callable[[], Any]) -> Any:
    """The output of the prefix in a forward pass that `run` starts, and that goes no further."""
    reached: list[Any] = []

    def take(_module: nn.Module, _inputs: Any, output: Any) -> None:
        reached.append(output)
        raise _Reached

    with prefix.last.register_forward_hook(take), suppress(_Reached):
        run()
    if not reached:
        raise LookupError(f"{prefix.name} is not run")
    return reached[0]


def count_runs(prefix: Prefix, run: Callable[[], Any]) -> int:
    """How often `run` runs the prefix to its end."""
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    with prefix.last.register_forward_hook(count):
        run()
    return runs


def tensors(output: Any) -> dict[str | None, Tensor]:
    """Tensors of an output by name: those of a base model, or the states of a block under None."""
    import torch

    if torch.is_tensor(output):
        return {None: output}
    if isinstance(output, Mapping):
        return {name: value for name, value in output.items() if torch.is_tensor(value)}
    if isinstance(output, tuple) and output and torch.is_tensor(output[0]):
        return {None: output[0]}
    return {}


@contextmanager
def passed_over(prefix: Prefix, states: Tensor, like: Any) -> Iterator[None]:
    """Let the modules of a prefix give `states` in place of running, in an output of the same form as `like`.

    What else a base model would give is not a number, so that a head which reads it is found out.
    """
    output = _in_form(prefix, states, like)

    def give(*_args: Any, **_kwargs: Any) -> Any:
        return output

    def give_states(*_args: Any, **_kwargs: Any) -> Any:
        return states

    replaced = [(module, give_states) for module in prefix.before] + [(prefix.last, give)]
    before = [vars(module).get("forward") for module, _ in replaced]
    for module, forward in replaced:
        module.forward = forward
    try:
        yield
    finally:
        for (module, _), old in zip(replaced, before, strict=True):
            if old is None:
                del module.forward
            else:
                module.forward = old


def _in_form(prefix: Prefix, states: Tensor, like: Any) -> Any:
    import torch

    if torch.is_tensor(like):
        return states
    if isinstance(like, Mapping):
        nothing = states.new_full((1,), float("nan"))
        fields = {str(name): nothing for name in tensors(like)}
        return type(like)(**{**fields, str(prefix.field): states})
    return (states, *[None] * (len(like) - 1))
