"""How training is doing, where it is logged: gradients and updates by group of layers, activations of the head.

Nothing is read from the device in other steps. `diagnosis.diagnose` says what the figures mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.learning.diagnosis import Finding, diagnose
from nlp_finetune.models.sharding import whole

_MOST_SAMPLED = 20_000
"""Numbers of one tensor that its update is measured by; more cost memory and change nothing."""
_HEAD = ("input_std", "input_zeros", "output_mean", "output_std", "output_max")


def sample(tensor: Tensor) -> Tensor:
    """At most 20,000 or so numbers of a tensor, evenly spread over it, as a view where that can be."""
    flat = local(tensor).detach().flatten()
    step = -(-flat.numel() // _MOST_SAMPLED) or 1
    # A step that shares a factor with the width would visit the same few columns again and again.
    while step > 1 and math.gcd(step, tensor.shape[-1]) > 1:
        step += 1
    return flat[::step]


def local(tensor: Tensor) -> Tensor:
    """This process's share of a sharded tensor, or the tensor."""
    mine: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return mine


def sum_of_squares(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Of all numbers of some tensors, as a scalar on `device`; 0 of none."""
    if not tensors:
        return torch.zeros((), device=device)
    return torch.nn.utils.get_total_norm(tensors).float().square().to(device)


def head_statistics(inputs: Any, output: Any) -> Tensor | None:
    """`[5]`: the input's standard deviation and share of zeros, the output's mean, standard deviation, largest size.

    NaN where the head is given no tensor; None where it gives none.
    """
    given = next((x for x in inputs if torch.is_tensor(x) and x.is_floating_point()), None)
    made = output if torch.is_tensor(output) else next((x for x in _values(output) if torch.is_tensor(x)), None)
    if made is None or not made.numel():
        return None
    made = made.detach().float()
    nothing = torch.full((), math.nan, device=made.device)
    first, zeros = nothing, nothing
    if given is not None and given.numel():
        given = given.detach().float()
        first, zeros = given.std(correction=0), (given == 0).float().mean()
    return torch.stack([first, zeros, made.mean(), made.std(correction=0), made.abs().max()])


def _values(output: Any) -> Sequence[Any]:
    if isinstance(output, Mapping):
        return list(output.values())
    return output if isinstance(output, tuple | list) else []


@dataclass
class _Measured:
    """What one step leaves on the device until it is logged."""

    step: int
    norm: Any
    gradients: list[Tensor]
    before: list[list[Tensor]]
    updates: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    head: list[Tensor] = field(default_factory=list)


class Health(TrainerCallback):  # type: ignore[misc]
    """Measures the steps that will be logged; `line` is what the last of them gave.

    `due(step)` says whether a step will be logged. Engines call `on_gradients` in every step, between clipping
    and the optimizer. `gather` gives one value from each process where each holds a share of every parameter,
    and is None where it holds all of them; statistics of the head are those of this process.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[nn.Parameter]],
        head: nn.Module | None,
        *,
        due: Callable[[int], bool],
        gather: Callable[[Any], list[Any]] | None = None,
    ) -> None:
        self.groups = groups
        self.due = due
        self.gather = gather
        self.line: dict[str, Any] = {}
        self._step = 0
        self._measuring = False
        self._head: list[Tensor] = []
        self._now: _Measured | None = None
        if head is not None:
            head.register_forward_hook(self._note_head)

    def _note_head(self, _module: nn.Module, inputs: Any, output: Any) -> None:
        if self._measuring and torch.is_grad_enabled():
            found = head_statistics(inputs, output)
            self._head += [] if found is None else [found]

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._step = state.global_step + 1
        self._measuring = self.due(self._step)
        self._head = []

    def on_gradients(self, norm: float | Tensor | None) -> None:
        """Take the gradients of this step; `norm` is that of all of them before clipping."""
        if not self._measuring:
            return
        self._measuring = False
        gradients, before = [], []
        for parameters in self.groups.values():
            moving = [p for p in parameters if p.grad is not None]
            device = local(parameters[0]).device
            gradients.append(sum_of_squares([local(p.grad) for p in moving if p.grad is not None], device))
            before.append([sample(p).clone() for p in moving])
        self._now = _Measured(self._step, norm, gradients, before, head=self._head)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._now is None or self._now.step != self._step:
            return
        for parameters, before in zip(self.groups.values(), self._now.before, strict=True):
            moving = [p for p in parameters if p.grad is not None]
            device = local(parameters[0]).device
            changes = [sample(p) - old for p, old in zip(moving, before, strict=True)]
            self._now.updates.append(sum_of_squares(changes, device))
            self._now.weights.append(sum_of_squares(before, device))
        self._now.before = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        found, self.line = self._now, {}
        if found is None or found.step != state.global_step or not found.updates or "loss" not in (logs or {}):
            return
        self._now = None
        self.line = self._read(found)

    def _read(self, found: _Measured) -> dict[str, Any]:
        """The figures as plain numbers: the one place that waits for the device."""
        squares = torch.stack([*found.gradients, *found.updates, *found.weights]).tolist()
        if self.gather is not None:
            squares = [sum(parts) for parts in zip(*self.gather(squares), strict=True)]
        count = len(self.groups)
        gradients, updates, weights = squares[:count], squares[count : 2 * count], squares[2 * count :]
        measured, norm = math.sqrt(sum(gradients)), _number(found.norm)
        # Gradients are measured as clipping has left them; the norm is that before it.
        scale = norm / measured if measured and math.isfinite(norm) else 1.0
        trained = [i for i in range(count) if weights[i] or gradients[i]]
        names = list(self.groups)
        line: dict[str, Any] = {
            "gradients": {names[i]: rounded(scale * math.sqrt(gradients[i])) for i in trained},
            "updates": {names[i]: rounded(math.sqrt(updates[i] / weights[i])) for i in trained if weights[i]},
        }
        if found.head:
            each = torch.stack(found.head)
            values = [*each[:, :-1].mean(0).tolist(), float(each[:, -1].max())]
            line["head"] = {name: rounded(v) for name, v in zip(_HEAD, values, strict=True) if not math.isnan(v)}
        return line


def _number(value: Any) -> float:
    if torch.is_tensor(value):
        value = whole(value)
    return math.nan if value is None else float(value)


def rounded(value: float) -> float | None:
    """Five significant digits; None for what JSON cannot say."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


class Doctor(TrainerCallback):  # type: ignore[misc]
    """Says once what `diagnose` finds in the history so far (main process only); comes after `Health`."""

    def __init__(self, health: Health, *, say: Callable[[str], None]) -> None:
        self.health = health
        self.say = say
        self.lines: list[dict[str, Any]] = []
        self.said: set[tuple[str, str | None]] = set()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # The checkpoint keeps losses and norms, but not what was measured by group.
        self.lines = [dict(line) for line in state.log_history if "loss" in line]

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if "loss" not in (logs or {}):
            return
        self.lines.append({"step": state.global_step, **(logs or {}), "health": self.health.line})
        for finding in diagnose(self.lines):
            if (finding.kind, finding.where) not in self.said:
                self.said.add((finding.kind, finding.where))
                self.say(describe(finding))


def describe(finding: Finding) -> str:
    """One line for the log and the report."""
    return f"step {finding.step}: {finding.kind} gradients: {finding.message}"
