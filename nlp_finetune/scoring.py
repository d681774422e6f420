"""The model of a run as it is measured on the run's own rows, in training and at the end."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from nlp_finetune import inference
from nlp_finetune.learning.averaging import WeightAverage
from nlp_finetune.learning.flow import Flow
from nlp_finetune.learning.shortcut import Shortcut
from nlp_finetune.preparation import Prepared
from nlp_finetune.runtime import Runtime
from nlp_finetune.stopping import Interrupted, StopRequest

_EVAL_ROWS, _EVAL_TOKENS = 64, 16_384
"""Most rows and tokens of an evaluation batch whose size is left to us."""


def eval_batch_size(prepared: Prepared) -> int:
    """Rows of one evaluation batch; `auto` takes fewer where rows are long."""
    asked = prepared.recipe.train.eval_batch_size
    if asked != "auto":
        return asked
    longest = max(max(data["length"]) for data in prepared.encoded.values())
    return max(1, min(_EVAL_ROWS, _EVAL_TOKENS // int(longest)))


def loading_workers(prepared: Prepared, runtime: Runtime) -> int:
    """Processes that load data; `auto` takes this process's share of the cores for images, which are decoded."""
    asked = prepared.recipe.train.workers
    if asked != "auto":
        return asked
    return min(inference.MOST_WORKERS, runtime.cores) if prepared.task.images else 0


def scorer(
    prepared: Prepared, model: Any, runtime: Runtime, stop: StopRequest, *, shortcut: Shortcut | None = None
) -> inference.Model:
    """The model as `inference` runs it on the rows of this run, until the run is asked to stop."""
    return inference.Model(
        prepared.task,
        model,
        prepared.processor,
        runtime,
        eval_batch_size(prepared),
        loading_workers(prepared, runtime) if shortcut is None else 0,
        shortcut=shortcut,
        stop=lambda: runtime.any(stop.reason is not None)[0],
    )


def score(
    prepared: Prepared,
    model: Any,
    *,
    objective: Any,
    runtime: Runtime,
    stop: StopRequest,
    flow: Flow,
    average: WeightAverage | None,
    shortcut: Shortcut | None,
) -> dict[str, float] | None:
    """Metrics of the model on the validation rows; None, and `flow.interrupted`, where the run is to stop."""
    task, rows = prepared.task, prepared.rows["validation"]
    loaded = scorer(prepared, model, runtime, stop, shortcut=shortcut)
    try:
        with nullcontext() if average is None else average.applied():
            runtime.share_statistics(model)
            output = loaded.run(rows, encoded=prepared.encoded["validation"], objective=objective)
    except Interrupted:
        flow.interrupted = True
        return None
    task.tune(output.predictions, rows)
    return {"loss": output.loss or 0.0, **task.metrics(output.predictions, rows)}
