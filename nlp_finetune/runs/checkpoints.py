"""Checkpoints: written whole or not at all, verified before they are trusted, read by both engines.

`checkpoints/step-N/` is a superset of a transformers Trainer checkpoint (weights, trainer_state.json,
optimizer.pt, scheduler.pt, rng_state*.pth), with the state of our callbacks and a manifest of sizes,
hashes and what it belongs to. It is filled under another name, put on the disk, and renamed.
`checkpoints/best-N/` holds weights alone, under a manifest too.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerState
from transformers.trainer_pt_utils import safe_globals

from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.models import adapters, compact, sharding
from nlp_finetune.runs import sealing
from nlp_finetune.runs.folder import discard, read_json, swap_in, write_json

CALLBACKS = "callbacks.json"
AVERAGE = "average.safetensors"
KEPT = "BestWeights"
"""Name under which callbacks.json has the best evaluations whose weights were kept."""
_STEP = re.compile(r"step-(\d+)")
_PARTIAL = re.compile(r"\.step-(\d+)\.partial")


def step_folder(root: Path, step: int) -> Path:
    """Folder of the checkpoint taken after `step` optimizer steps."""
    return root / f"step-{step}"


def best_folder(root: Path, step: int) -> Path:
    """Folder of the weights that were the best so far, after `step` optimizer steps."""
    return root / f"best-{step}"


def partial_folder(root: Path, step: int) -> Path:
    """Where a checkpoint is filled, by all ranks, before `publish` renames it."""
    return root / f".step-{step}.partial"


def random_state(processes: int) -> bytes:
    """This process's random states, in the form that the Trainer reads."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        cuda = torch.cuda.random
        states["cuda"] = cuda.get_rng_state_all() if processes > 1 else cuda.get_rng_state()
    buffer = io.BytesIO()
    torch.save(states, buffer)
    return buffer.getvalue()


def save_random_states(folder: Path, states: Sequence[bytes]) -> None:
    """Write the random states of all processes, in the order of their ranks."""
    for rank, content in enumerate(states):
        (folder / _random_state_name(rank, len(states))).write_bytes(content)


def processes_of(folder: Path | str) -> int:
    """How many processes wrote a checkpoint."""
    return len(list(Path(folder).glob("rng_state*.pth")))


def _random_state_name(rank: int, processes: int) -> str:
    return "rng_state.pth" if processes <= 1 else f"rng_state_{rank}.pth"


def save_state(
    folder: Path,
    *,
    state: TrainerState,
    optimizer: Mapping[str, Any] | None,
    scheduler: Any,
    scaler: Any,
    callbacks: Mapping[str, Any],
) -> None:
    """Write everything but weights and random states (main process only); `optimizer` is its whole state.

    None for a part leaves it out.
    """
    parts = {
        "optimizer.pt": optimizer,
        "scheduler.pt": scheduler.state_dict() if scheduler is not None else None,
        "scaler.pt": scaler.state_dict() if scaler is not None else None,
    }
    for name, content in parts.items():
        if content is not None:
            with open(folder / name, "wb") as stream:  # a stream of ours raises the system's own errors
                torch.save(content, stream)
    state.save_to_json(str(folder / "trainer_state.json"))
    write_json(folder / CALLBACKS, dict(callbacks))


def publish(root: Path, step: int, *, keep: int, about: Mapping[str, Any] | None = None) -> Path:
    """Seal a filled checkpoint, put it on the disk under its name, and delete all but `keep` of them.

    Of the weights that were the best so far, those stay that a checkpoint that is kept refers to. Later
    checkpoints could not be gone on from, or training would not be here: they are deleted.
    """
    partial, final = partial_folder(root, step), step_folder(root, step)
    sealing.seal(partial, about=about)
    swap_in(partial, final)
    steps = _steps(root)
    kept = [number for number in steps if number <= step][-keep:]
    for number in steps:
        if number not in kept:
            discard(step_folder(root, number))
    _delete_bests(root)
    return final


def amend(
    folder: Path,
    *,
    state: TrainerState,
    scheduler: Any,
    callbacks: Mapping[str, Any],
    optimizer: Mapping[str, Any] | None = None,
) -> None:
    """Replace the small files of a checkpoint, and the optimizer's where given, as a whole or not at all.

    The other large files are not copied.
    """
    manifest = sealing.contents(folder)
    changed = {"trainer_state.json", "scheduler.pt", CALLBACKS} | ({"optimizer.pt"} if optimizer else set())
    step = state.global_step
    partial = partial_folder(folder.parent, step)
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial, copy_function=_link, ignore=shutil.ignore_patterns(sealing.MANIFEST, *changed))
    save_state(partial, state=state, optimizer=optimizer, scheduler=scheduler, scaler=None, callbacks=callbacks)
    known = {name: entry for name, entry in manifest["files"].items() if name not in changed}
    sealing.seal(partial, about=manifest["about"], known=known)
    swap_in(partial, folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _steps(root: Path) -> list[int]:
    found = [_STEP.fullmatch(f.name) for f in root.iterdir()] if root.is_dir() else []
    return sorted(int(match.group(1)) for match in found if match)


def last_step(root: Path) -> int | None:
    """Step of the newest checkpoint, whether it verifies or not."""
    return max(_steps(root), default=None)


def tidy(root: Path) -> None:
    """Delete what killed processes left; a checkpoint that lacked nothing but its name gets it."""
    for step in [int(match.group(1)) for f in root.glob(".step-*") if (match := _PARTIAL.fullmatch(f.name))]:
        if sealing.fault(partial_folder(root, step)) is None:
            swap_in(partial_folder(root, step), step_folder(root, step))
    for left in [*root.glob(".*.partial"), *root.glob(".*.old")]:
        shutil.rmtree(left, ignore_errors=True)


def newest(root: Path, say: Callable[[str], None], *, about: Mapping[str, Any] | None = None) -> Path | None:
    """The newest checkpoint that verifies, best weights included; says which were skipped and why.

    `about` is what it must belong to.
    """
    for step in reversed(_steps(root)):
        folder = step_folder(root, step)
        problem = sealing.fault(folder, about=about) or _fault_of_best(folder)
        if problem is None:
            return folder
        say(f"checkpoint {folder} skipped: {problem}")
    return None


def _fault_of_best(folder: Path) -> str | None:
    for step in sorted(_bests_of(folder)):
        best = best_folder(folder.parent, step)
        if problem := sealing.fault(best):
            return f"the best weights, {best.name}: {problem}"
    return None


def _bests_of(folder: Path) -> set[int]:
    """Steps of the weights that a checkpoint refers to: the best, and others that were kept with it."""
    best = load_trainer_state(folder).best_global_step
    kept = load_callbacks(folder).get(KEPT, {}).get("kept", [])
    return {step for step in (best, *(step for _, step in kept)) if step}


def _delete_bests(root: Path) -> None:
    """Delete the weights of former bests that no checkpoint refers to."""
    wanted: set[int] = set()
    for step in _steps(root):
        try:
            wanted |= _bests_of(step_folder(root, step))
        except (OSError, ValueError, TypeError):  # damaged: nothing can go on from it
            continue
    for folder in root.glob("best-*"):
        if folder not in {best_folder(root, step) for step in wanted}:
            discard(folder)


def delete_bests(root: Path) -> None:
    """Delete the weights that were the best so far: the best of them have become the model."""
    for folder in root.glob("best-*"):
        shutil.rmtree(folder, ignore_errors=True)


def delete_all(root: Path) -> None:
    """Delete every checkpoint: the run starts afresh."""
    if root.is_dir():
        discard(root)


def load_callbacks(folder: Path | str) -> dict[str, Any]:
    """State of our callbacks, as `save_state` wrote it."""
    return read_json(Path(folder) / CALLBACKS)


def load_trainer_state(folder: Path | str) -> TrainerState:
    """Position, history and best so far."""
    return TrainerState.load_from_json(str(Path(folder) / "trainer_state.json"))


def save_weights(model: Any, folder: Path, weights: Mapping[str, torch.Tensor] | None) -> None:
    """Write a model's weights, or those of its adapters and of what is trained beside them.

    `weights` are those of a sharded model, put together by `sharding.whole_weights`.
    """
    if adapters.is_adapted(model):
        adapters.save(model, folder)
    elif weights is not None:
        model.save_pretrained(folder, state_dict=dict(weights))
    else:
        model.save_pretrained(folder)


def load_weights(model: torch.nn.Module, folder: Path | str) -> None:
    """Put what `save_weights` wrote into a model of the same architecture.

    Raises `NlpFinetuneError` if a weight is missing that is not tied to another.
    """
    put_weights(model, read_weights(model, folder), given=folder)


def read_weights(model: torch.nn.Module, folder: Path | str) -> dict[str, torch.Tensor]:
    """What `save_weights` wrote of a model like this one."""
    folder = Path(folder)
    if adapters.is_adapted(model):
        adapter: dict[str, torch.Tensor] = load_file(folder / adapters.WEIGHTS)
        return adapter
    index = folder / "model.safetensors.index.json"
    shards = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    weights: dict[str, torch.Tensor] = {}
    for shard in sorted(shards):
        weights |= load_file(folder / shard)
    return weights


def put_weights(model: Any, weights: Mapping[str, torch.Tensor], *, given: Path | str) -> None:
    """Put weights that `read_weights` gave into a model; `given` is where they are from, for messages."""
    if adapters.is_adapted(model):
        adapters.put(model, weights, given=given)
        return
    result = model.load_state_dict(sharding.shard_weights(model, weights), strict=False)
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = [name for name in result.missing_keys if name not in tied]
    if missing or result.unexpected_keys:
        raise NlpFinetuneError(
            f"checkpoint {given} does not fit this model: missing {missing[:3]}, "
            f"unexpected {result.unexpected_keys[:3]}"
        )


def save_average(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write the average of weights beside the weights that training goes on with; nothing where there is none yet."""
    if tensors:
        save_file(dict(tensors), folder / AVERAGE)


def load_average(folder: Path | str) -> dict[str, torch.Tensor]:
    """What `save_average` wrote."""
    file = Path(folder) / AVERAGE
    return load_file(file) if file.is_file() else {}


def load_optimizer(folder: Path | str, optimizer: Any, scheduler: Any, scaler: Any) -> None:
    """Put optimizer, schedule and gradient scaler back where they were; None leaves one out."""
    folder = Path(folder)
    if optimizer is not None:
        saved = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
        fused = [group.get("fused") for group in optimizer.param_groups]
        sharding.load_optimizer(optimizer, compact.fitted(optimizer, saved))
        # How steps are computed is a matter of where the run goes on, under shards in another way than without.
        for group, own in zip(optimizer.param_groups, fused, strict=True):
            if "fused" in group:
                group["fused"] = own
    for name, part in (("scheduler.pt", scheduler), ("scaler.pt", scaler)):
        if part is not None and (folder / name).is_file():
            part.load_state_dict(torch.load(folder / name, map_location="cpu", weights_only=True))


def optimizer_groups(folder: Path | str) -> list[int]:
    """Number of parameters in each group of the saved optimizer."""
    saved = torch.load(Path(folder) / "optimizer.pt", map_location="cpu", mmap=True, weights_only=True)
    return [len(group["params"]) for group in saved["param_groups"]]


def load_random_state(folder: Path | str, rank: int, processes: int) -> None:
    """Put this rank's random states back, where the checkpoint was taken with as many processes."""
    file = Path(folder) / _random_state_name(rank, processes)
    if not file.is_file():
        return
    with safe_globals():
        states = torch.load(file, weights_only=True)
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.random.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        cuda = torch.cuda.random
        cuda.set_rng_state_all(states["cuda"]) if processes > 1 else cuda.set_rng_state(states["cuda"])
