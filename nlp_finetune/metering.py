"""How much of its GPU a run uses: what a step has to compute, counted before training, by what was trained in the end.

Nothing of it runs in a training step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nlp_finetune import choices
from nlp_finetune.data.batching import BatchPlan
from nlp_finetune.data.drawing import DrawnRows
from nlp_finetune.models import flops
from nlp_finetune.prefix_trial import autocast, moved, trial_step
from nlp_finetune.preparation import Prepared
from nlp_finetune.runs.peaks import peak_tflops
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.strategy import DEEPSPEED

_COUNTED_ROWS = 5


def work_of_rows(
    prepared: Prepared, model: Any, rows: DrawnRows, collate: Any, training: Any, *, precision: str, runtime: Runtime
) -> flops.Work | None:
    """Operations of training on a row by its length, counted with rows of all lengths; None where they are not known.

    `rows` are the training rows as they are drawn, `training` is the objective with all that the recipe adds to it.
    Nothing is counted on a device whose peak is not known, where layers thaw one after the other, and under DeepSpeed,
    which takes a model apart before training begins.
    """
    recipe = prepared.recipe
    thaws = recipe.freeze.gradual is not None
    if peak(runtime, precision) is None or thaws or runtime.strategy in DEEPSPEED:
        return None
    # BatchNorm, and what mixes or compares rows, need more than one.
    coupled = choices.coupling(recipe, prepared.task) is not None
    copies = 2 if prepared.task.images or recipe.regularize.mixes is not None or coupled else 1
    lengths = prepared.encoded["train"]["length"]
    order = np.argsort(np.asarray(lengths), kind="stable")
    chosen = np.unique(order[np.linspace(0, len(order) - 1, _COUNTED_ROWS).astype(int)]).tolist()
    one = torch.ones((), device=runtime.device)
    model.to(runtime.device)
    try:
        counted = []
        for row in chosen:
            batch = moved(collate(rows.__getitems__([row] * copies)), runtime)
            with autocast(precision, runtime):
                counted.append(_counted(model, batch, training, one) / copies)
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        say(f"model FLOPs are not counted: {str(error).partition(chr(10))[0]}")
        return None
    return flops.fitted([lengths[row] for row in chosen], counted)


def _counted(model: Any, batch: Any, training: Any, one: torch.Tensor) -> int:
    return flops.count(lambda: trial_step(model, lambda: training(model, batch, one)[0]))


def peak(runtime: Runtime, precision: str) -> float | None:
    """TFLOPS that the device of a process can do; None where they are not known, as of any CPU."""
    if runtime.device.type != "cuda":
        return None
    # `none` is torch's default, which is `ieee`.
    tf32 = precision == "fp32" and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return peak_tflops(torch.cuda.get_device_name(runtime.device), "tf32" if tf32 else precision)


def throughput(
    plan: BatchPlan, *, steps: int, seconds: float, has_tokens: bool, work: flops.Work | None, peaks: Sequence[float]
) -> dict[str, float]:
    """Tokens a second without padding, and the share of the devices' peak, of the first `steps` steps.

    `peaks` are TFLOPS of the devices of all processes.
    """
    if not seconds:
        return {}
    tokens, operations = 0, 0.0
    lengths = np.asarray(plan.lengths)
    for step in range(steps):
        seen = lengths[plan.global_batch(step)]
        tokens += int(seen.sum())
        operations += 0.0 if work is None else work.of(seen)
    found = {"tokens_per_second": round(tokens / seconds, 1)} if has_tokens else {}
    if work is not None and peaks:
        tflops = operations / seconds / 1e12
        found |= {
            "model_tflops_per_second": float(f"{tflops:.4g}"),
            "peak_tflops": sum(peaks),
            "model_flops_utilization": float(f"{tflops / sum(peaks):.4g}"),
        }
    return found
