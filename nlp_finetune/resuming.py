"""Going on with a run: whether the folder holds this run, and from where training goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlp_finetune.build import Built
from nlp_finetune.errors import InputError
from nlp_finetune.models import adapters
from nlp_finetune.preparation import Prepared
from nlp_finetune.recipe import Recipe, differences, fingerprint, is_free, load
from nlp_finetune.runs import checkpoints, sealing
from nlp_finetune.runs.folder import RunFolder, disk_faults, read_json, write_json
from nlp_finetune.runs.recording import History
from nlp_finetune.runs.saving import Checkpoints, callback_states
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.stopping import Interrupted
from nlp_finetune.tasks import base
from nlp_finetune.versions import code


def saved_recipe(folder: RunFolder) -> Recipe:
    """The resolved recipe that a run was started with."""
    return load(str(folder), task_options=base.options_of, task_names=base.names()).recipe


def refuse_other_run(folder: RunFolder, recipe: Recipe) -> list[str]:
    """Raise `InputError` where a folder is taken by another recipe's run, or by files that are no run of ours.

    Gives the settings that have changed and that the run may go on with.
    """
    if folder.is_begun:
        changed = differences(saved_recipe(folder), recipe)
        wrong = [line for line in changed if not is_free(line)]
        if wrong:
            raise InputError(
                f"output_dir {folder} holds the run of another recipe:\n  " + "\n  ".join(wrong[:10])
                + "\nChoose another output_dir, or give the same settings to go on."
            )  # fmt: skip
        return changed
    if folder.path.is_dir():
        # A run that was stopped before its first step leaves its status, and nothing else.
        if any(file != folder.status for file in folder.path.iterdir()):
            raise InputError(f"output_dir {folder} is not empty and holds no run. Choose another output_dir.")
    elif folder.path.exists():
        raise InputError(f"output_dir {folder} is a file. Choose another output_dir.")
    return []


def with_decisions(recipe: Recipe, folder: RunFolder, *, processes: int) -> Recipe:
    """What `auto` decided when the run started holds for all of it; threads, while there are as many processes."""
    decisions = read_json(folder.decisions)
    names = ["precision", "gradient_checkpointing"]
    names += [] if recipe.train.max_tokens is not None else ["micro_batch_size"]
    if read_json(folder.environment).get("processes") == processes:
        names.append("threads")
    update: dict[str, Any] = {name: decisions[name] for name in names if name in decisions}
    sections: dict[str, Any] = {"train": recipe.train.model_copy(update=update)}
    if decisions.get("frozen_cache") is False:
        # What was trained without the cache would go on rounded in another way with it.
        sections["freeze"] = recipe.freeze.model_copy(update={"cache": "off"})
    return recipe.model_copy(update=sections)


Identity = dict[str, Any]
"""What makes a checkpoint this run's: its `recipe`, as it was given, and the `data` that the model is shown."""


def identity(given: Recipe, prepared: Prepared) -> Identity:
    """Fingerprints of a run, for the manifests of its checkpoints."""
    return {"recipe": fingerprint(given), "data": prepared.digests}


def data_of(prepared: Prepared) -> dict[str, Any]:
    """What a run is trained and measured on, for `data.json`: origin, rows and digests of each split."""
    loaded = prepared.loaded
    return {
        split: {
            "origin": loaded.origins.get(split, loaded.origins["train"]),
            "rows": len(rows),
            "digest": loaded.splits[split]._fingerprint if split in loaded.splits else None,
            "encoded": prepared.digests[split],
        }
        for split, rows in prepared.rows.items()
    }


def refuse_other_data(folder: RunFolder, prepared: Prepared) -> None:
    """Raise `InputError` where the rows are not those that the run in this folder began with."""
    before, now = read_json(folder.data), data_of(prepared)
    if not before or before == now:
        return
    found = []
    for split in dict.fromkeys([*before, *now]):
        old, new = before.get(split), now.get(split)
        if old is None or new is None:
            found.append(f"{split}: was {'not there' if old is None else 'there'}")
        elif old["digest"] != new["digest"]:
            counts = f"{old['rows']} rows" + (f", now {new['rows']}" if old["rows"] != new["rows"] else "")
            found.append(f"{split} ({new['origin']}): the content has changed ({counts})")
    if not found:
        found.append(
            "the rows are the same, but they are changed or tokenized in another way: the tokenizer, the package or "
            "the table of synonyms is another"
        )
    raise InputError(
        f"output_dir {folder}: the data are not those that this run began with:\n  " + "\n  ".join(found)
        + "\nPut the former data back to go on, or choose another output_dir."
    )  # fmt: skip


def refuse_other_base(folder: RunFolder, model: Any) -> None:
    """Raise `InputError` where an adapter's base has other weights than those that this run began on."""
    before, now = read_json(folder.decisions).get("base_weights"), adapters.digest_of_base(model)
    if before is not None and before != now:
        raise InputError(
            f"output_dir {folder}: the weights of model.checkpoint have changed since this run began, and its adapter "
            "is for the former ones. Put those back to go on, or choose another output_dir."
        )


@dataclass(frozen=True)
class Start:
    """From where training goes on: a checkpoint or none, and whether it has ended already."""

    checkpoint: Path | None = None
    training_ended: bool = False
    best_step: int = 0


def find_start(built: Built, folder: RunFolder, about: Identity, runtime: Runtime, *, afresh: bool = False) -> Start:
    """Find the newest checkpoint that can be trusted and bring the callbacks back to its state.

    With `afresh` all of them are deleted.

    Raises `Interrupted` where the run is asked to stop during an evaluation that was still to be done.
    """
    root = folder.checkpoints

    def look() -> Path | None:
        with disk_faults("what an earlier start has left", root):
            if afresh:
                checkpoints.delete_all(root)
                return None
            checkpoints.tidy(root)
        return checkpoints.newest(root, say, about=about)

    newest = runtime.on_main(look)
    if newest is None:
        return Start()
    saved, state = checkpoints.load_callbacks(newest), checkpoints.load_trainer_state(newest)
    for callback in built.stateful:
        if type(callback).__name__ in saved:
            callback.load_state_dict(saved[type(callback).__name__])
    if built.average is not None:
        built.average.load(checkpoints.load_average(newest))
    built.flow.step = state.global_step
    say(f"going on from {newest} (step {state.global_step} of {built.job.batches.steps})")
    _refuse_other_parameters(built, newest, runtime)
    _say_what_is_new(newest, runtime)
    ended = bool(saved["training_ended"])
    if saved["evaluation_pending"]:
        ended = _evaluate_now(built, newest, state, runtime)
    return Start(newest, ended, state.best_global_step or 0)


def _refuse_other_parameters(built: Built, checkpoint: Path, runtime: Runtime) -> None:
    """Raise `InputError` where the optimizer has other parameters under this launcher than it was saved with.

    Parameters that never reach the loss are frozen for several processes and for DeepSpeed, and not for one process.
    """
    before = checkpoints.processes_of(checkpoint)
    groups = built.job.make_optimizer(built.job.model).param_groups
    if checkpoints.optimizer_groups(checkpoint) != [len(group["params"]) for group in groups]:
        raise InputError(
            f"this run cannot go on with {runtime.processes} processes under {runtime.strategy}, because some of its "
            "parameters never reach the loss: one process leaves them as they are, several have to freeze them, and so "
            f"has DeepSpeed. Go on with {before} under what it began with."
        )


def _say_what_is_new(checkpoint: Path, runtime: Runtime) -> None:
    before = checkpoints.processes_of(checkpoint)
    if before != runtime.processes:
        say(
            f"{before} -> {runtime.processes} processes: the rows of every step stay the same; sums are rounded in "
            "another order, and dropout draws other numbers"
        )
    old, new = sealing.contents(checkpoint)["about"].get("code", {}), code()
    changed = [f"{name} {old[name]} -> {new[name]}" for name in new if name in old and old[name] != new[name]]
    if changed:
        say(f"the code has changed since this checkpoint, and results may with it: {', '.join(changed)}")


def _evaluate_now(built: Built, checkpoint: Path, state: Any, runtime: Runtime) -> bool:
    """Run the evaluation that a request to stop cut short, and put its outcome into the checkpoint.

    Gives whether training has ended with it.
    """
    from transformers import TrainerControl
    from transformers.trainer_callback import CallbackHandler

    job = built.job
    say(f"step {state.global_step}: the evaluation that was interrupted comes first")
    checkpoints.load_weights(job.model, checkpoint)
    scores = job.score(job.model.to(runtime.device))
    if scores is None:
        raise Interrupted
    metrics = {f"eval_{name}": value for name, value in scores.items()}
    state.log_history.append({**metrics, "epoch": state.epoch, "step": state.global_step})
    listening = [callback for callback in job.callbacks if not isinstance(callback, Checkpoints)]
    for callback in listening:
        if isinstance(callback, History):
            callback.rewind(state.global_step, before_evaluation=True)
    # What listens may change the schedule, never the optimizer.
    optimizer = job.make_optimizer(job.model)
    scheduler = job.make_scheduler(optimizer, job.batches.steps)
    checkpoints.load_optimizer(checkpoint, None, scheduler, None)
    events = CallbackHandler(listening, job.model, job.processor, optimizer, scheduler)
    control = events.on_evaluate(job.args, state, TrainerControl(), metrics)
    ended = control.should_training_stop or state.global_step >= job.batches.steps
    callbacks = callback_states(built.stateful, training_ended=ended, evaluation_pending=False)
    with disk_faults("the checkpoint", checkpoint):
        runtime.on_main(lambda: checkpoints.amend(checkpoint, state=state, scheduler=scheduler, callbacks=callbacks))
    return bool(ended)


def record_data(folder: RunFolder, prepared: Prepared) -> None:
    """Write down what the run begins with."""
    write_json(folder.data, data_of(prepared))
