"""Checkpoints: written whole or not at all, verified before they are trusted, read by both engines.

`checkpoints/step-N/` is a superset of a transformers Trainer checkpoint (weights, trainer_state.json,
optimizer.pt, scheduler.pt, rng_state*.pth), with the state of our callbacks and a manifest of sizes
and hashes. It is filled under another name and renamed. `checkpoints/best-N/` holds weights alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import TrainerState
from transformers.trainer_pt_utils import safe_globals

from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.models import adapters, sharding
from nlp_finetune.runs.folder import read_json, sync_folder, write_json

MANIFEST = "manifest.json"
CALLBACKS = "callbacks.json"
_STEP = re.compile(r"step-(\d+)")


def step_folder(root: Path, step: int) -> Path:
    """Folder of the checkpoint taken after `step` optimizer steps."""
    return root / f"step-{step}"


def best_folder(root: Path, step: int) -> Path:
    """Folder of the weights that were the best so far, after `step` optimizer steps."""
    return root / f"best-{step}"


def partial_folder(root: Path, step: int) -> Path:
    """Where a checkpoint is filled, by all ranks, before `publish` renames it."""
    return root / f".step-{step}.partial"


def save_random_state(folder: Path, rank: int, processes: int) -> None:
    """Write this rank's random states under the name that the Trainer reads."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        cuda = torch.cuda.random
        states["cuda"] = cuda.get_rng_state_all() if processes > 1 else cuda.get_rng_state()
    torch.save(states, folder / _random_state_name(rank, processes))


def _random_state_name(rank: int, processes: int) -> str:
    return "rng_state.pth" if processes <= 1 else f"rng_state_{rank}.pth"


def save_state(
    folder: Path,
    *,
    state: TrainerState,
    optimizer: Mapping[str, Any],
    scheduler: Any,
    scaler: Any,
    callbacks: Mapping[str, Any],
) -> None:
    """Write everything but weights and random states (main process only); `optimizer` is its whole state."""
    torch.save(optimizer, folder / "optimizer.pt")
    torch.save(scheduler.state_dict(), folder / "scheduler.pt")
    if scaler is not None:
        torch.save(scaler.state_dict(), folder / "scaler.pt")
    state.save_to_json(str(folder / "trainer_state.json"))
    write_json(folder / CALLBACKS, dict(callbacks))


def publish(root: Path, step: int, *, keep: int) -> Path:
    """Write the manifest, put the files on the disk, rename, and delete all but `keep` checkpoints."""
    partial, final = partial_folder(root, step), step_folder(root, step)
    files = sorted(f for f in partial.rglob("*") if f.is_file())
    manifest = {str(f.relative_to(partial)): {"size": f.stat().st_size, "sha256": _sha256(f)} for f in files}
    write_json(partial / MANIFEST, manifest)
    sync_folder(partial)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    for old in _steps(root)[:-keep] if keep else []:
        shutil.rmtree(step_folder(root, old), ignore_errors=True)
    return final


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _steps(root: Path) -> list[int]:
    found = [_STEP.fullmatch(f.name) for f in root.iterdir()] if root.is_dir() else []
    return sorted(int(match.group(1)) for match in found if match)


def fault(folder: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None: every file has its size and hash."""
    try:
        manifest = read_json(folder / MANIFEST)
    except (ValueError, OSError):
        return "its manifest cannot be read"
    if not manifest:
        return "it has no manifest"
    for name, expected in manifest.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["size"]:
            return f"{name} has {file.stat().st_size} bytes, not {expected['size']}"
        if _sha256(file) != expected["sha256"]:
            return f"{name} is damaged (wrong sha256)"
    return None


def newest(root: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that verifies; says which were skipped and why."""
    for step in reversed(_steps(root)):
        folder = step_folder(root, step)
        problem = fault(folder)
        if problem is None:
            return folder
        say(f"checkpoint {folder} skipped: {problem}")
    return None


def delete_bests(root: Path, *, but: int | None) -> None:
    """Delete the weights of former bests."""
    for folder in root.glob("best-*"):
        if but is None or folder != best_folder(root, but):
            shutil.rmtree(folder, ignore_errors=True)


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
    folder = Path(folder)
    if adapters.is_adapted(model):
        adapters.load(model, folder)
        return
    index = folder / "model.safetensors.index.json"
    shards = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    weights: dict[str, torch.Tensor] = {}
    for shard in sorted(shards):
        weights |= load_file(folder / shard)
    result = model.load_state_dict(sharding.shard_weights(model, weights), strict=False)
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = [name for name in result.missing_keys if name not in tied]
    if missing or result.unexpected_keys:
        raise NlpFinetuneError(
            f"checkpoint {folder} does not fit this model: missing {missing[:3]}, "
            f"unexpected {result.unexpected_keys[:3]}"
        )


def load_optimizer(folder: Path | str, optimizer: Any, scheduler: Any, scaler: Any) -> None:
    """Put optimizer, schedule and gradient scaler back where they were."""
    folder = Path(folder)
    saved = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
    optimizer.load_state_dict(sharding.shard_optimizer(optimizer, saved))
    for name, part in (("scheduler.pt", scheduler), ("scaler.pt", scaler)):
        if part is not None and (folder / name).is_file():
            part.load_state_dict(torch.load(folder / name, map_location="cpu", weights_only=True))


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
