"""How an optimizer step's rows are cut to fit memory, and what must be frozen for several processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from nlp_finetune.errors import InputError, NlpFinetuneError
from nlp_finetune.runtime import Runtime
from nlp_finetune.strategy import SHARDED

_SHARE_OF_MEMORY = 0.5
"""Share of what is free that activations may fill: running out on a CPU is a kill, not an error."""


def choose_micro_batches(
    asked: int | str,
    model: torch.nn.Module,
    lengths: Sequence[int],
    *,
    batch_size: int,
    runtime: Runtime,
    precision: str,
    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]],
    rows: Any,
    objective: Callable[..., Any],
    inputs: Mapping[str, torch.Tensor] | None = None,
    say: Callable[[str], None],
) -> int:
    """Micro batches that each process runs in one optimizer step.

    `asked` is the most rows of one micro batch, or `auto`: estimated on a CPU and for shards, found by
    running the longest rows on a GPU that holds the whole model. The rows of an optimizer step stay
    `batch_size` in each case. `inputs` are those of a few rows where they are no token ids.
    """
    if batch_size < runtime.processes:
        raise InputError(
            f"train.batch_size {batch_size} is smaller than the {runtime.processes} processes: each needs a row."
        )
    mine = math.ceil(batch_size / runtime.processes)
    if asked != "auto":
        fits = int(asked)
    elif runtime.device.type == "cpu" or runtime.strategy in SHARDED:
        fits = _estimate(model, max(lengths), mine, runtime, precision, inputs)
    else:
        fits = _probe(model, lengths, mine, runtime, precision, collate, rows, objective)
    # Free memory differs between processes and moments; the cut into micro batches must not.
    fits = min(runtime.gather(fits))
    micro_batches = math.ceil(mine / max(1, min(fits, mine)))
    if asked == "auto" and micro_batches > 1:
        say(f"micro batches: {micro_batches} x {math.ceil(mine / micro_batches)} rows, to fit memory")
    # A piece needs a row on each process, also where the batch does not divide evenly.
    return min(micro_batches, batch_size // runtime.processes)


def check_coupling(why: str, *, needed: int, batch_size: int, pieces: int, say: Callable[[str], None]) -> None:
    """Say what the cut of an optimizer step into `pieces` means where the rows of a micro batch are coupled.

    Raises `InputError` where a micro batch has fewer rows than are `needed` to learn anything.
    """
    fewest, most = batch_size // pieces, math.ceil(batch_size / pieces)
    if fewest < needed:
        raise InputError(
            f"{why}, and a micro batch would have {fewest} row here: it needs at least {needed}. Raise "
            "train.micro_batch_size or train.batch_size, or use fewer processes."
        )
    rows = str(most) if fewest == most else f"{fewest} or {most}"
    say(f"{why}: {rows} rows; results depend on train.micro_batch_size and on the number of processes")


def _estimate(
    model: torch.nn.Module,
    longest: int,
    rows: int,
    runtime: Runtime,
    precision: str,
    inputs: Mapping[str, torch.Tensor] | None,
) -> int:
    """Most rows whose activations fit into this process's share of free memory."""
    from nlp_finetune.models.summary import estimate_memory

    on_cpu = runtime.device.type == "cpu"
    free = _free_memory() / runtime.local_processes if on_cpu else torch.cuda.mem_get_info(runtime.device)[0]
    shards = runtime.processes if runtime.strategy in ("fsdp", "zero3") else 1
    while rows > 1:
        need = estimate_memory(model, rows=rows, tokens=longest, optimizer_states=2, precision=precision, inputs=inputs)
        activations = need.pop("activations")
        if sum(need.values()) / shards + activations <= _SHARE_OF_MEMORY * free:
            break
        rows //= 2
    return rows


def _free_memory() -> int:
    """Bytes that can be used without swapping; a cautious guess where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            fields = dict(line.split(":") for line in stream)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 4 * 2**30


def _probe(
    model: torch.nn.Module,
    lengths: Sequence[int],
    rows: int,
    runtime: Runtime,
    precision: str,
    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]],
    data: Any,
    objective: Callable[..., Any],
) -> int:
    """Most of the longest rows that a forward and backward pass fits on the GPU."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])[:rows]
    model.to(runtime.device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    while rows >= 1:
        batch = collate([data[i] for i in order[:rows]])
        try:
            with torch.autocast(runtime.device.type, dtype=dtype, enabled=dtype is not None):
                one_step(model, batch, objective, runtime.device)
            # Optimizer states come on top of what the probe allocated.
            states = 8 * sum(p.numel() for p in model.parameters() if p.requires_grad)
            free, _ = torch.cuda.mem_get_info(runtime.device)
            if free > states:
                return rows
        except torch.cuda.OutOfMemoryError:
            pass
        finally:
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        rows //= 2
    raise NlpFinetuneError("not even one row fits the GPU's memory: lower task.max_length or take a smaller model.")


def one_step(
    model: torch.nn.Module, batch: Mapping[str, Any], objective: Callable[..., Any], device: torch.device
) -> None:
    """One forward and backward pass that leaves the global random state and the model's buffers as they were."""
    from nlp_finetune.models.summary import kept_buffers

    with kept_buffers(model), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        moved = {name: v.to(device) if torch.is_tensor(v) else v for name, v in batch.items()}
        loss, _ = objective(model, moved, torch.ones((), device=device))
        loss.backward()


def freeze_unused(
    model: torch.nn.Module,
    batch: Mapping[str, Any],
    objective: Callable[..., Any],
    device: torch.device,
    say: Callable[[str], None],
) -> None:
    """Freeze parameters that the loss does not depend on, before the model is wrapped for DDP or DeepSpeed.

    DDP waits for a gradient of every parameter that asks for one; those never get one, and the
    optimizer would not move them either; DeepSpeed's, which sees one long vector, would decay them.
    """
    model.to(device)
    one_step(model, batch, objective, device)
    unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    model.zero_grad(set_to_none=True)
    for name in unused:
        model.get_parameter(name).requires_grad_(False)
    if unused:
        say(f"{len(unused)} parameters do not reach the loss and are frozen: {', '.join(unused[:3])}")
