"""The recipe's `freeze.cache`: what a frozen prefix makes of every row is computed once and read from disk.

Whether a model can start behind its prefix is tried out, with loss and gradients of a few rows, and not looked up
in a list of families: where they differ, nothing is cached. The files stand beside the cached tokens, are named by all
that they depend on, and are kept under `freeze.cache_limit_gb` altogether.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlp_finetune.data.batching import by_length
from nlp_finetune.data.drawing import DrawnRows
from nlp_finetune.data.states import States, Writer, finish, is_whole, make_room
from nlp_finetune.errors import InputError
from nlp_finetune.job import Objective
from nlp_finetune.learning.shortcut import Collate, Shortcut, items_of
from nlp_finetune.models.prefix import Prefix, find, reach, tensors
from nlp_finetune.prefix_trial import Found, autocast, evaluating, moved, try_out
from nlp_finetune.preparation import Prepared
from nlp_finetune.runs.folder import disk_faults
from nlp_finetune.runtime import Runtime
from nlp_finetune.strategy import SHARDED

_VERSION = 1
_SPLITS = ("train", "validation")
_FEWEST_EPOCHS = 1.5
"""`auto` caches for runs that see their rows at least so often: the rows are run once to fill the cache."""
_MOST_TOKENS = 16_384


@dataclass(frozen=True)
class PrefixCache:
    """The states of the training and validation rows behind a frozen prefix."""

    prefix: Prefix
    shortcuts: Mapping[str, Shortcut]
    seconds: float

    def for_training(self, rows: DrawnRows, collate: Collate, objective: Any) -> tuple[DrawnRows, Collate, Any]:
        """Training rows, collator and objective of a model that starts behind the prefix."""
        shortcut = self.shortcuts["train"]
        numbered = DrawnRows(rows.rows, transform=shortcut.transform(rows.transform), seed=rows.seed, numbered=True)
        return numbered, shortcut.collate(collate), shortcut.objective(objective)

    def figures(self) -> dict[str, Any]:
        """What it was, for `metrics.json`: seconds are those of this start."""
        size = sum(shortcut.states.megabytes for shortcut in self.shortcuts.values())
        return {"blocks": self.prefix.blocks, "megabytes": round(size, 1), "seconds": round(self.seconds, 4)}


def make(
    prepared: Prepared,
    model: Any,
    rows: DrawnRows,
    *,
    objective: Objective,
    training: Objective,
    precision: str,
    runtime: Runtime,
    eval_batch_size: int,
    workers: int,
    say: Callable[[str], None],
) -> PrefixCache | None:
    """The cache of a model's frozen prefix, computed or found on disk; None where there is to be none.

    `rows` are the training rows as they are drawn, `objective` is the task's, `training` the same with what the
    recipe adds to it. `say` gets one line about what is cached, or why it is not.

    Raises `InputError` for `freeze.cache: on` where it can't be had.
    """
    section = prepared.recipe.freeze
    if section.cache == "off" or not section.is_set:
        return None
    prefixes = find(model)
    if not prefixes and section.cache == "auto":
        return None
    try:
        _check(prepared, rows, prefixes, runtime)
        found = try_out(prepared, model, prefixes, objective, training, precision, runtime)
        if found is None:
            raise _No(f"{type(model).__name__} does not give the same loss and gradients when it starts behind them")
        size = _estimate(prepared, found)
        root = _root()
        too_large = runtime.on_main(lambda: _too_large(size, section.cache_limit_gb, root))
        if too_large is not None:
            raise _No(too_large)
    except _No as reason:
        if section.cache == "on":
            raise InputError(f"freeze.cache on: {reason}. Use freeze.cache=auto.") from None
        say(f"frozen layers are not cached: {reason}")
        return None
    names = {split: _digest(prepared, split, model, found, precision, runtime) for split in _SPLITS}
    there = runtime.on_main(lambda: all(is_whole(root / name) for name in names.values()))
    if not there:
        limit = int(section.cache_limit_gb * 2**30)
        runtime.on_main(lambda: make_room(root, needed=size, limit=limit, keep=list(names.values())))
    say(
        f"frozen layers cached: {found.prefix.described} {'were run' if there else 'are run'} once for "
        f"{sum(len(prepared.encoded[split]) for split in _SPLITS):,} rows, about {size / 2**20:,.0f} MB of at most "
        f"{section.cache_limit_gb:g} GB in {root}; training starts behind {found.prefix.name}"
    )
    begun = time.perf_counter()
    shortcuts = {}
    for split in _SPLITS:
        compute = _Pass(prepared, split, model, found, objective, precision, runtime, eval_batch_size, workers)
        states = compute.states(root, names[split])
        unseen = getattr(compute.transform, "unseen", None)
        shortcuts[split] = Shortcut(found.prefix, found.like, found.form, states, unseen)
    return PrefixCache(found.prefix, shortcuts, time.perf_counter() - begun)


class _No(Exception):
    """Why nothing is cached."""


def _check(prepared: Prepared, rows: DrawnRows, prefixes: Sequence[Prefix], runtime: Runtime) -> None:
    """Raise `_No` for what can be known without running the model."""
    recipe = prepared.recipe
    if not prefixes:
        raise _No("no block is frozen together with the embeddings and all blocks below it")
    if runtime.strategy in SHARDED:
        raise _No("the model is shared out (FSDP, DeepSpeed)")
    if runtime.processes > runtime.local_processes:
        raise _No("the machines of this run share no cache")
    if recipe.regularize.adversarial or recipe.regularize.neftune:
        raise _No("the recipe changes word embeddings at random (regularize)")
    if recipe.regularize.mixes is not None:
        raise _No("rows are mixed with others (regularize)")
    if rows.transform is not None and not getattr(rows.transform, "is_fixed", False):
        raise _No("rows are changed at random in each epoch")
    epochs = prepared.steps * prepared.batch_size / len(prepared.encoded["train"])
    if recipe.freeze.cache == "auto" and epochs < _FEWEST_EPOCHS:
        raise _No(f"the run sees its rows {epochs:.2g} times, and to fill the cache they are run once")


def _root() -> Path:
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / "nlp_finetune" / "frozen"


# -- computing --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pass:
    """One pass of the rows of a split through the frozen prefix."""

    prepared: Prepared
    split: str
    model: Any
    found: Found
    objective: Objective
    precision: str
    runtime: Runtime
    batch_size: int
    workers: int

    @property
    def transform(self) -> Any:
        """How the rows of this split are changed on their way into a batch."""
        return self.prepared.task.transform(self.prepared.processor)

    def states(self, root: Path, name: str) -> States:
        """The states of all rows, from disk where they are there."""
        folder, runtime = root / name, self.runtime
        if not runtime.on_main(lambda: is_whole(folder)):
            with disk_faults("what the frozen layers make of the rows", root):
                partial = runtime.on_main(lambda: _made(root / f".{name}-{os.getpid()}"))
                try:
                    self._write(partial, folder)
                except BaseException:
                    shutil.rmtree(partial, ignore_errors=True)
                    raise
        return States(folder)

    def _write(self, partial: Path, folder: Path) -> None:
        writer = Writer(partial, process=self.runtime.rank)
        for positions, items in self._items():
            for row, own in zip(positions, items, strict=True):
                writer.add(row, self.found.form.to_disk(own))
        writer.close()
        gathered = self.runtime.gather((writer.places, writer.kind))
        places: dict[int, tuple[int, int, int]] = {}
        for part, _ in gathered:
            places |= part
        kind = next(kind for _, kind in gathered if kind is not None)
        about = {"dtype": kind[0], "shape": list(kind[1]), "files": len(gathered), "behind": self.found.prefix.name}
        self.runtime.on_main(lambda: finish(partial, folder, [places[row] for row in sorted(places)], about))

    def _items(self) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Positions and items of the rows of each batch of this process, the longest rows first."""
        from torch.utils.data import DataLoader
        from tqdm import tqdm

        encoded, runtime = self.prepared.encoded[self.split], self.runtime
        batches = by_length(encoded["length"], self.batch_size, most_tokens=_MOST_TOKENS)
        mine = batches[runtime.rank :: runtime.processes]
        loader: Any = DataLoader(
            DrawnRows(encoded, transform=self.transform),  # type: ignore[arg-type]  # by its methods
            batch_sampler=[positions.tolist() for positions in mine],
            collate_fn=self.prepared.task.collator(self.prepared.processor),
            num_workers=self.workers if len(mine) > 1 else 0,
            generator=torch.Generator(),
        )
        one = torch.ones((), device=runtime.device)
        shown = tqdm(mine, desc=f"frozen layers, {self.split}", unit="batch", leave=False, disable=not runtime.is_main)
        with evaluating(self.model), torch.no_grad(), autocast(self.precision, runtime):
            for positions, given in zip(shown, loader, strict=True):
                batch = moved(given, runtime)
                output = reach(self.found.prefix, lambda: self.objective(self.model, batch, one))  # noqa: B023
                states = tensors(output)[self.found.prefix.field]
                yield positions.tolist(), items_of(states, batch, len(positions), self.found.form)


def _made(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _estimate(prepared: Prepared, found: Found) -> int:
    """Bytes of the states of all rows."""
    size = 0.0
    for split in _SPLITS:
        lengths = prepared.encoded[split]["length"]
        size += found.item_bytes * (sum(lengths) * found.items_a_length if found.form.by_token else len(lengths))
    return int(size)


def _too_large(size: int, limit_gb: float, root: Path) -> str | None:
    if size > limit_gb * 2**30:
        return f"about {size / 2**30:.3g} GB would exceed freeze.cache_limit_gb, {limit_gb:g}"
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if size * 1.1 > free:
        return f"about {size / 2**30:.3g} GB do not fit the {free / 2**30:.3g} GB left at {root}"
    return None


def _digest(prepared: Prepared, split: str, model: Any, found: Found, precision: str, runtime: Runtime) -> str:
    """Names the states of a split by everything that they depend on."""
    import transformers

    transform = prepared.task.transform(prepared.processor)
    config = {key: value for key, value in model.config.to_dict().items() if key != "_name_or_path"}
    attention = getattr(model.config, "_attn_implementation", None)
    about = [
        _VERSION, prepared.digests[split], repr(transform), found.prefix.name, found.prefix.field, found.form.by_token,
        precision, runtime.device.type, torch.__version__, transformers.__version__, type(model).__name__,
        config, attention,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(about, default=str, sort_keys=True).encode())
    still = [(name, p) for name, p in model.named_parameters() if not p.requires_grad]
    for name, tensor in [*still, *model.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
