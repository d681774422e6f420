"""How an optimizer step's rows are cut to fit memory, and what must be frozen for several processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from nlp_finetune.errors import InputError, NlpFinetuneError
from nlp_finetune.models import recomputing
from nlp_finetune.runtime import Runtime
from nlp_finetune.strategy import SHARDED

_FEWEST_ON_GPU = 8
"""Rows of a micro batch below which a GPU idles, so that computing blocks again is the better way to save memory."""
_BLOCK_INPUT = 1 / 17
"""Share of what a block keeps that its input is (2 of 34 s b h; Korthikanti et al. 2022, Reducing Activation
Recomputation in Large Transformer Models)."""
_SHARE_OF_MEMORY = 0.5
"""Share of what is free that activations may fill: running out on a CPU is a kill, not an error."""


def choose_micro_batches(
    asked: int | str | None,
    checkpointing: str,
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
) -> tuple[int, bool]:
    """Micro batches that each process runs in one optimizer step, and whether blocks are computed again in it.

    `asked` is the most rows of one micro batch, or `auto`: estimated on a CPU and for shards, found by
    running the longest rows on a GPU that holds the whole model; None leaves it to the plan. The rows of an optimizer
    step stay `batch_size` in each case. `inputs` are those of a few rows where they are no token ids.

    `checkpointing` is `on`, `off`, or `auto`: on where a micro batch found by `auto` would hold fewer than 8 rows on a
    GPU, or not even one on a CPU, and holds more with it. It is turned on in the model here.
    """
    if batch_size < runtime.processes:
        raise InputError(
            f"train.batch_size {batch_size} is smaller than the {runtime.processes} processes: each needs a row."
        )
    mine = math.ceil(batch_size / runtime.processes)
    estimated = runtime.device.type == "cpu" or runtime.strategy in SHARDED

    def measure(recomputes: bool) -> int:
        if estimated:
            fits = _estimate(model, max(lengths), mine, runtime, precision, inputs, recomputes=recomputes)
        else:
            fits = _probe(model, lengths, mine, runtime, precision, collate, rows, objective)
        # Free memory differs between processes and moments; the cut into micro batches must not.
        return min(runtime.gather(fits))

    if checkpointing == "on":
        recomputing.check_supported(model)
        recomputing.turn_on(model)
    recomputes, why = checkpointing == "on", "as asked"
    if asked is None:
        say(f"micro batches by tokens; gradient checkpointing {'on' if recomputes else 'off'}")
        return 1, recomputes
    if asked != "auto":
        fits = int(asked)
        why = "train.micro_batch_size is given" if checkpointing == "auto" else why
    else:
        fits = measure(recomputes)
        if checkpointing == "auto":
            wanted = min(mine, 1 if estimated else _FEWEST_ON_GPU)
            fits, recomputes, why = _recompute_if_it_helps(model, fits, wanted, measure)
        if fits == 0 and not estimated:
            raise NlpFinetuneError(
                "not even one row fits the GPU's memory: lower task.max_length or take a smaller model."
            )
    micro_batches = math.ceil(mine / max(1, min(fits, mine)))
    # A piece needs a row on each process, also where the batch does not divide evenly.
    micro_batches = min(micro_batches, batch_size // runtime.processes)
    cause = "as asked" if asked != "auto" else "to fit memory" if micro_batches > 1 else "they fit memory"
    say(f"micro batches: {micro_batches} x {math.ceil(mine / micro_batches)} rows ({cause})")
    say(f"gradient checkpointing {'on' if recomputes else 'off'} ({why})")
    return micro_batches, recomputes


def _recompute_if_it_helps(
    model: torch.nn.Module, fits: int, wanted: int, measure: Callable[[bool], int]
) -> tuple[int, bool, str]:
    """Rows that fit, whether blocks are computed again for that, and why; it is turned on in the model then."""
    if fits >= wanted:
        return fits, False, "not needed"
    if not recomputing.is_supported(model):
        return fits, False, "this family of models cannot"
    recomputing.turn_on(model)
    more = measure(True)
    if more > fits:
        return more, True, f"without it {fits} rows fit memory"
    recomputing.turn_off(model)
    return fits, False, "it would not help"


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
    *,
    recomputes: bool,
) -> int:
    """Most rows whose activations fit into this process's share of free memory; 0 where not even one's do."""
    from nlp_finetune.models.summary import block_lists, estimate_memory, logits_bytes

    on_cpu = runtime.device.type == "cpu"
    free = _free_memory() / runtime.local_processes if on_cpu else torch.cuda.mem_get_info(runtime.device)[0]
    shards = runtime.processes if runtime.strategy in ("fsdp", "zero3") else 1
    blocks = sum(len(stack) for _, stack in block_lists(model)) or 1
    if recomputes:
        # Measured with everything kept; then one block at a time keeps all, and each its input.
        recomputing.turn_off(model)
    while rows >= 1:
        need = estimate_memory(model, rows=rows, tokens=longest, optimizer_states=2, precision=precision, inputs=inputs)
        activations = need.pop("activations")
        if recomputes:
            logits = min(activations, rows * longest * logits_bytes(model))
            activations = int(logits + (activations - logits) * min(1.0, 1 / blocks + _BLOCK_INPUT))
        if sum(need.values()) / shards + activations <= _SHARE_OF_MEMORY * free:
            break
        rows //= 2
    if recomputes:
        recomputing.turn_on(model)
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
    """Most of the longest rows that a forward and backward pass fits on the GPU; 0 where not even one does."""
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
    return 0


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
