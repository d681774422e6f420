"""FSDP2: the weights of a model shared out among processes, and put together again.

torch's `fully_shard` is called here and not left to accelerate, so that both engines train the same
shards, on CPUs too. What is saved is always whole and in the order of one process: a checkpoint
does not tell how many processes wrote it, and any number of them can read it.

Source: Zhao et al. 2023, PyTorch FSDP; `torch.distributed.fsdp.fully_shard`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nlp_finetune.models import zero
from nlp_finetune.models.summary import block_lists

if TYPE_CHECKING:
    import torch
    from torch import nn


def is_sharded(model: nn.Module) -> bool:
    """Whether each process holds a share of the weights: `shard` has been here, or DeepSpeed's ZeRO-3."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule) or zero.is_partitioned(model)


def units(model: nn.Module) -> list[nn.Module]:
    """The modules whose weights are gathered, used and let go together: the repeated blocks, by structure."""
    return [block for _, stack in block_lists(model) for block in stack]


def shard(model: nn.Module, *, device: torch.device, processes: int, reshard: bool, say: Callable[[str], None]) -> None:
    """Share out every parameter among the processes, in place; all of them must call this.

    Each process must hold the same weights. `reshard` lets go of a block's gathered weights after its
    forward pass and gathers them again for the backward pass.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    blocks = units(model)
    total = sum(parameter.numel() for parameter in model.parameters())
    for part in [*blocks, model]:
        fully_shard(part, mesh=mesh, reshard_after_forward=reshard)
    # transformers' Trainer then leaves placement and the reduction of gradients to the model itself.
    model._is_distributed_loading_by_transformers = True  # type: ignore[assignment]
    model._is_fsdp_managed_module = True  # type: ignore[assignment]
    kind = type(blocks[0]).__name__.removeprefix("FSDP") if blocks else "no blocks found: the model as one unit"
    say(f"FSDP2: {len(blocks)} x {kind}; about {total // processes:,} of {total:,} parameters on each process")


def whole(tensor: torch.Tensor, *, keep: bool = True) -> torch.Tensor | None:
    """A tensor put together from its shards, on the CPU, where `keep`; all processes must call this."""
    from torch.distributed.tensor import DTensor

    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    elif hasattr(tensor, "ds_id"):
        tensor = zero.gathered(tensor)
    return tensor.detach().cpu() if keep else None


def whole_weights(model: nn.Module, *, keep: bool) -> dict[str, Any] | None:
    """All weights of a sharded model where `keep`, nothing of one that is not sharded.

    All processes must call this; each holds one whole tensor at a time. Tied weights stay one tensor.
    """
    if not is_sharded(model):
        return None
    found: dict[int, torch.Tensor | None] = {}
    names: dict[str, int] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names[name] = id(tensor)
        if id(tensor) not in found:
            found[id(tensor)] = whole(tensor, keep=keep)
    return {name: found[number] for name, number in names.items()} if keep else {}


def whole_optimizer(optimizer: Any, *, keep: bool) -> dict[str, Any]:
    """State of an optimizer as one process would have it; all processes must call this."""
    import torch

    if zero.is_shared_out(optimizer):
        return zero.whole_optimizer(optimizer, keep=keep)
    saved: dict[str, Any] = optimizer.state_dict()
    state = {
        index: {name: whole(value, keep=keep) if torch.is_tensor(value) else value for name, value in values.items()}
        for index, values in saved["state"].items()
    }
    return {**saved, "state": state}


def shard_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """This process's shards of whole weights, for a sharded model; the weights themselves for another."""
    places = model.state_dict(keep_vars=True)
    return {name: _share(value, places.get(name)) for name, value in weights.items()}


def load_optimizer(optimizer: Any, saved: Mapping[str, Any]) -> None:
    """Put what `whole_optimizer` gave, or this process's share of it, into an optimizer."""
    if zero.is_shared_out(optimizer):
        zero.load_optimizer(optimizer, saved)
    else:
        optimizer.load_state_dict(_shard_optimizer(optimizer, saved))


def _shard_optimizer(optimizer: Any, saved: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        index: {
            name: _share(value, parameters[index])
            if torch.is_tensor(value) and value.shape == parameters[index].shape
            else value
            for name, value in values.items()
        }
        for index, values in saved["state"].items()
    }
    return {**saved, "state": state}


def _share(value: torch.Tensor, place: torch.Tensor | None) -> torch.Tensor:
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(place, DTensor):
        return value
    # Every process has read the same file: each cuts out its own part, and nothing is sent.
    return distribute_tensor(value.to(place.device), place.device_mesh, place.placements, src_data_rank=None)
