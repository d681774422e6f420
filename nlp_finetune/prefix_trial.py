"""Whether training may start behind a frozen prefix, tried out with loss and gradients of a few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_finetune.data.drawing import DrawnRows
from nlp_finetune.job import Objective
from nlp_finetune.learning.shortcut import Form, Unfit, form_of, items_of, placed
from nlp_finetune.models.prefix import Prefix, count_runs, passed_over, reach, tensors
from nlp_finetune.models.summary import kept_buffers
from nlp_finetune.preparation import Prepared
from nlp_finetune.runtime import Runtime

_PROBED_ROWS = 4
_TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 3e-2}
"""Largest difference of loss and gradients, as a share of the largest gradient, that rounding explains."""


@dataclass(frozen=True)
class Found:
    """A prefix that training can start behind, tried out."""

    prefix: Prefix
    like: Any
    form: Form
    item_bytes: int
    items_a_length: float
    """Items of a row for each unit of its length."""


def try_out(
    prepared: Prepared,
    model: Any,
    prefixes: Sequence[Prefix],
    objective: Objective,
    training: Objective,
    precision: str,
    runtime: Runtime,
) -> Found | None:
    """The first prefix behind which loss and gradients of a few rows are those of the whole model; None if none is."""
    model.to(runtime.device)
    task, encoded = prepared.task, prepared.encoded["train"]
    rows = DrawnRows(encoded, transform=task.transform(prepared.processor))
    lengths = np.asarray(encoded["length"])
    order = np.argsort(lengths, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(_PROBED_ROWS, len(order))).astype(int)]
    batch = moved(task.collator(prepared.processor)(rows.__getitems__(chosen.tolist())), runtime)
    one = torch.ones((), device=runtime.device)
    with autocast(precision, runtime):
        for prefix in prefixes:
            try:
                with evaluating(model), torch.no_grad():
                    output = reach(prefix, lambda: objective(model, dict(batch), one))
                    if count_runs(prefix, lambda: objective(model, dict(batch), one)) != 1:
                        continue
                for name, states in sorted(tensors(output).items(), key=lambda pair: pair[1].numel()):
                    named = replace(prefix, field=name)
                    form = form_of(states, batch, len(chosen))
                    items = items_of(states, batch, len(chosen), form)
                    again = placed(torch.cat(items), batch, form)
                    if _is_same(model, batch, named, again, output, training, one, precision):
                        size = items[0][0].numel() * items[0].element_size()
                        share = sum(map(len, items)) / int(lengths[chosen].sum())
                        return Found(named, output, form, size, share)
            # What a family's own code makes of states that it does not expect is its own affair.
            except (Unfit, TypeError, ValueError, LookupError, RuntimeError, AttributeError):
                continue
    return None


def _is_same(
    model: Any,
    batch: Mapping[str, Any],
    prefix: Prefix,
    states: Tensor,
    like: Any,
    training: Objective,
    one: Tensor,
    precision: str,
) -> bool:
    """Whether loss and gradients of a training step are the same from states."""
    whole = trial_step(model, lambda: training(model, dict(batch), one)[0])
    with passed_over(prefix, states, like):
        short = trial_step(model, lambda: training(model, dict(batch), one)[0])
    scale = max(float(tensor.abs().max()) for tensor in whole)
    return len(whole) == len(short) and all(
        bool((one.float() - other.float()).abs().max() <= _TOLERANCE[precision] * scale)
        for one, other in zip(whole, short, strict=True)
    )


def trial_step(model: Any, loss_of: Callable[[], Tensor]) -> list[Tensor]:
    """Loss and gradients of a step in training mode, with the same dropout each time; leaves no trace."""
    devices = [one.device for one in model.parameters()][:1]
    with kept_buffers(model), torch.random.fork_rng(devices=[d for d in devices if d.type == "cuda"]):
        torch.manual_seed(0)
        model.train()
        model.zero_grad(set_to_none=True)
        loss = loss_of()
        torch.autograd.backward(loss)
        found = [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
        model.zero_grad(set_to_none=True)
    return found


def moved(batch: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    """A batch on the device of this process."""
    return {name: v.to(runtime.device) if torch.is_tensor(v) else v for name, v in batch.items()}


def autocast(precision: str, runtime: Runtime) -> Any:
    """Context in which a forward pass has the precision of training."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(runtime.device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode; each module is in its own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
