"""Training that leaves the finite numbers: seen in the step in which it happens, and traced to rows.

On a CPU (and wherever the engine waits for the device anyway) the norm of the gradients is looked at in every step,
before the optimizer moves. On a GPU a step that goes wrong is marked on the device, and the mark is read where the
run waits for it in any case: at logs, evaluations and saves. Nothing that is not finite is ever saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.models.sharding import whole

What = Literal["gradient", "loss", "weights"]
_MOST_SKIPPED = 20
"""Steps in a row that a gradient scaler (fp16) may leave out: by then it has tried every scale."""


class DivergedError(NlpFinetuneError):
    """Training has left the finite numbers, on every process alike: `what` did, in optimizer step `step` (from 1)."""

    def __init__(self, what: What, step: int) -> None:
        self.what = what
        self.step = step
        super().__init__(f"the {what} {_VERB[what]} no finite number in step {step}: training has diverged.")


_VERB = {"gradient": "is", "loss": "is", "weights": "are"}


class FiniteWatch(TrainerCallback):  # type: ignore[misc]
    """Raises `DivergedError` where gradient, loss or weights are no finite numbers; `step` is where the run is.

    Comes after what sets `control` and before whatever saves. `agree(flag)` says whether it holds on any process.
    `scaled` is whether a gradient scaler leaves out steps whose gradient overflows (fp16), which is no divergence.
    """

    def __init__(self, *, agree: Callable[[bool], bool], scaled: bool) -> None:
        self.agree = agree
        self.scaled = scaled
        self.step = 0
        self._skipped = 0
        self._first_bad: Tensor | None = None

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.step = state.global_step + 1

    def on_gradients(self, norm: float | Tensor | None) -> None:
        """Look at the norm of the gradients, the same on every process, before the optimizer moves."""
        if norm is None:
            return
        if self.scaled:
            self._skipped = 0 if math.isfinite(_number(norm)) else self._skipped + 1
            if self._skipped >= _MOST_SKIPPED:
                raise DivergedError("gradient", self.step)
        elif torch.is_tensor(norm) and norm.device.type != "cpu":
            self._mark(norm)
        elif not math.isfinite(_number(norm)):
            raise DivergedError("gradient", self.step)

    def _mark(self, norm: Tensor) -> None:
        """Note the first step that went wrong, on the device."""
        if hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()
        if self._first_bad is None:
            self._first_bad = torch.zeros((), dtype=torch.long, device=norm.device)
        is_first = ~torch.isfinite(norm) & (self._first_bad == 0)
        self._first_bad = torch.where(is_first, self.step, self._first_bad)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if not (control.should_log or control.should_evaluate or control.should_training_stop):
            return
        if self._first_bad is not None and (step := int(self._first_bad)):
            raise DivergedError("gradient", step)
        if self.agree(not are_finite(model.parameters())):
            raise DivergedError("weights", self.step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        # The mean over all processes, so that all of them see it.
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise DivergedError("loss", state.global_step)


class Rollbacks:
    """How often the run was rolled back; part of every checkpoint."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.count = saved["count"]


def _number(value: float | Tensor) -> float:
    found = whole(value) if torch.is_tensor(value) else value
    return float(found)  # type: ignore[arg-type]


def are_finite(parameters: Any) -> bool:
    """Whether every number of what trains is finite; of sharded parameters, of this process's share."""
    mine = [p.to_local() if hasattr(p, "to_local") else p for p in parameters if p.requires_grad]
    if not mine:
        return True
    # One number tells of all: a sum of squares can't overflow below 1e19.
    return math.isfinite(float(torch.nn.utils.get_total_norm([p.detach() for p in mine])))


@dataclass(frozen=True)
class Offender:
    """A row that by itself gives no finite loss, or no finite gradient; `draw` is its draw number."""

    draw: int
    what: What


def find_offenders(
    model: Any,
    objective: Callable[..., Any],
    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]],
    rows: Any,
    draws: Sequence[int],
    device: torch.device,
) -> list[Offender]:
    """Rows among `draws` whose loss, or else whose gradient, is no finite number on the weights as they are.

    Each row runs alone and without dropout. A row that cannot run alone is left out.
    """
    was_training, found = model.training, []
    model.eval()
    try:
        for draw in draws:
            model.zero_grad(set_to_none=True)
            try:
                batch = collate([rows[draw]])
                moved = {name: v.to(device) if torch.is_tensor(v) else v for name, v in batch.items()}
                loss, _ = objective(model, moved, torch.ones((), device=device))
            except (RuntimeError, ValueError, IndexError):
                continue
            if not math.isfinite(float(loss.detach())):
                found.append(Offender(int(draw), "loss"))
                continue
            loss.backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            if gradients and not math.isfinite(float(torch.nn.utils.get_total_norm(gradients))):
                found.append(Offender(int(draw), "gradient"))
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)
    return found
