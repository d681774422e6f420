"""What is done about training that has diverged: written down, and rolled back where the recipe asks for it.

A rollback goes back to the newest checkpoint, halves the learning rate *in that checkpoint*, and starts from it as a
resumed run does: whatever stops the run later, it goes on with the halved rate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_finetune.build import Built
from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.learning.divergence import DivergedError, Offender, are_finite, find_offenders
from nlp_finetune.models import sharding
from nlp_finetune.preparation import Prepared
from nlp_finetune.runs import checkpoints, halving
from nlp_finetune.runs.folder import RunFolder, disk_faults, read_json, write_json
from nlp_finetune.runs.recording import History
from nlp_finetune.runtime import Runtime, say

ADVICE = (
    "Lower optim.learning_rate (lr-find suggests one), set optim.max_grad_norm=1.0 or train.precision=fp32, or let "
    "the run go back by itself: train.on_divergence=rollback."
)
"""What helps against divergence."""
_FACTOR = 0.5
_MOST_NAMED = 5


def record(error: DivergedError, built: Built, folder: RunFolder, prepared: Prepared, runtime: Runtime) -> str:
    """Write down the step, its batches and the rows that are to blame; gives what to say of the rows.

    All processes must call this; each looks through its own rows.
    """
    plan = built.job.batches
    batches = [
        [draws.tolist() for draws in plan.micro_batch_draws(error.step - 1, process)]
        for process in range(runtime.processes)
    ]
    mine = [draw for piece in batches[runtime.rank] for draw in piece]
    weights = _weights_to_look_with(built, folder, runtime)
    found: list[Offender] = []
    if weights is not None:
        job = built.job
        found = find_offenders(job.model, job.objective, job.collate, job.train, mine, runtime.device)
    offenders = [one for part in runtime.gather(found) for one in part]
    rows = {draw: _rows(prepared, draw % plan.rows) for one in batches for piece in one for draw in piece}
    offending = [{**row, "what": one.what} for one in offenders for row in rows[one.draw]]
    entry = {
        "step": error.step,
        "epoch": round(plan.epoch_at(error.step - 1), 6),
        "what": error.what,
        "batches": [
            {"process": process, "micro_batch": i, "rows": [row["row"] for draw in piece for row in rows[draw]]}
            for process, pieces in enumerate(batches)
            for i, piece in enumerate(pieces)
        ],
        "looked_with": weights or "nothing: no finite weights were at hand",
        "offending": offending,
    }
    runtime.on_main(lambda: _append(folder.divergence, entry))
    return _blame(offending, sum(len(piece) for one in batches for piece in one), folder.divergence)


def _weights_to_look_with(built: Built, folder: RunFolder, runtime: Runtime) -> str | None:
    """Make sure that the model has finite weights, and say which; None where that can't be."""
    model = built.job.model
    if sharding.is_sharded(model):
        return None  # a forward pass is one of all processes, whose rows differ in number
    if not runtime.any(not are_finite(model.parameters()))[0]:
        return "the weights before the step"
    newest = runtime.on_main(lambda: checkpoints.newest(folder.checkpoints, lambda _: None))
    if newest is None:
        return None
    checkpoints.load_weights(model, newest)
    return f"the weights of {newest.name}"


def _rows(prepared: Prepared, position: int) -> list[dict[str, Any]]:
    """The rows of the user's data behind an encoded one: their numbers, texts and labels."""
    task, data = prepared.task, prepared.rows["train"]
    source = prepared.encoded["train"][position]["source"]
    light = data.remove_columns(list(task.heavy_columns))
    found = []
    for place in source if isinstance(source, list) else [source]:
        row = light[place]
        found.append({"row": row["row"], "text": task.row_text(row), "label": task.row_label(row)})
    return found


def _append(file: Path, entry: Mapping[str, Any]) -> None:
    with disk_faults("what diverged", file), open(file, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry, ensure_ascii=False, default=str) + "\n")


def _blame(offending: Sequence[Mapping[str, Any]], rows: int, file: Path) -> str:
    if not offending:
        return f"None of its {rows} rows does so by itself; all are listed in {file}."
    named = ", ".join(str(row["row"]) for row in offending[:_MOST_NAMED])
    more = f" and {len(offending) - _MOST_NAMED} more" if len(offending) > _MOST_NAMED else ""
    return f"{len(offending)} of its {rows} rows do so by themselves: row {named}{more}; all are listed in {file}."


def roll_back(
    error: DivergedError, blame: str, built: Built, folder: RunFolder, identity: Mapping[str, Any], runtime: Runtime,
    *, most: int,
) -> None:  # fmt: skip
    """Halve the learning rate in the newest checkpoint, from which training is to go on.

    Raises `NlpFinetuneError` where that was done `most` times already, or nothing can be gone back to.
    """

    def change() -> tuple[int, int]:
        checkpoint = checkpoints.newest(folder.checkpoints, say, about=identity)
        if checkpoint is None:
            raise NlpFinetuneError(f"{error} {blame} There is no checkpoint to roll back to.")
        saved = checkpoints.load_callbacks(checkpoint)
        done = int(saved.get("Rollbacks", {}).get("count", 0)) + 1
        if done > most:
            raise NlpFinetuneError(
                f"{error} {blame} It was rolled back {most} time(s) already, with the learning rate halved each time "
                "(train.max_rollbacks). Look at these rows, or lower optim.learning_rate by much more."
            )
        with disk_faults("the checkpoint", checkpoint):
            step = halving.scale_rate(checkpoint, _FACTOR, callbacks={**saved, "Rollbacks": {"count": done}})
        line = {"what": error.what, "from_step": error.step, "number": done, "rate_times": _FACTOR**done}
        History(folder.history).rewind(step)
        _append(folder.history, {"step": step, "epoch": round(built.job.batches.epoch_at(step), 6), "rollback": line})
        return step, done

    step, done = runtime.on_main(change)
    say(f"{error} {blame}")
    say(
        f"rolled back to step {step} ({done} of at most {most} times): the learning rate is halved from here on, "
        f"{_FACTOR**done:g} times that of the recipe"
    )


def with_smaller_micro_batches(error: Exception, built: Built, folder: RunFolder) -> NlpFinetuneError:
    """Write down that the run is to go on with micro batches of half the size; gives what to say of it."""
    rows = built.job.args.per_device_train_batch_size // 2
    if built.job.batches.max_tokens is not None:
        rows = 0
    cause = str(error).splitlines()[0] if isinstance(error, NlpFinetuneError) else "out of memory in a training step."
    if rows < 1 or not folder.decisions.is_file():
        return NlpFinetuneError(
            f"{cause} Set train.gradient_checkpointing=on, or a smaller task.max_length or train.max_tokens."
        )
    with disk_faults("the decision", folder.decisions):
        write_json(folder.decisions, {**read_json(folder.decisions), "micro_batch_size": rows})
    return NlpFinetuneError(
        f"{cause} The same command goes on from the newest checkpoint with micro batches of {rows} rows (the rows of a "
        "step stay the same)."
    )
