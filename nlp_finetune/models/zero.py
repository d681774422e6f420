"""DeepSpeed ZeRO-2 and -3: what it is told, and the state of an optimizer that it has shared out.

ZeRO-2 shares gradients and the optimizer's state among the processes, ZeRO-3 the weights too. What is
saved is whole and in the order of one process, as for FSDP (`sharding`): any number of processes, under
any strategy, goes on from it. DeepSpeed's own checkpoints go on with the same number of processes only.

Source: Rajbhandari et al. 2020, ZeRO; `deepspeed.utils.safe_get_full_optimizer_state` and its relatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def arguments(stage: int, *, precision: str) -> dict[str, Any]:
    """TrainingArguments that make transformers' Trainer train under DeepSpeed; it fills in what is `auto`.

    `precision` is fp32 or bf16, which is autocast, as without DeepSpeed: weights and optimizer stay fp32.
    """
    configuration = {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": False},
        # The optimizer is the recipe's, and not one of DeepSpeed's own.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "torch_autocast": {"enabled": precision == "bf16", "dtype": "bfloat16"},
        "steps_per_print": 2**31,
    }
    # The processes are connected already; the Trainer would connect them anew, and forget all but one on a CPU.
    return {"deepspeed": configuration, "accelerator_config": {"use_configured_state": True}}


def leave() -> None:
    """Forget the configuration, so that models loaded from now on are whole on each process."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def is_partitioned(model: nn.Module) -> bool:
    """Whether ZeRO-3 holds this model's weights: each process has a share of each."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """A weight put together from the shares of all processes; all of them must call this."""
    import deepspeed

    with deepspeed.zero.GatheredParameters([tensor]):
        whole: torch.Tensor = tensor.detach().clone()
    return whole


def remember(optimizer: torch.optim.Optimizer) -> None:
    """Note an optimizer's parameters, before DeepSpeed puts flat shares in their place."""
    optimizer.parameters_of_groups = [list(group["params"]) for group in optimizer.param_groups]  # type: ignore[attr-defined]


def _parts(optimizer: Any) -> tuple[Any, Any]:
    """DeepSpeed's optimizer and torch's in it; None twice where `remember` has not seen it."""
    outer = None
    while hasattr(optimizer, "optimizer"):
        outer, optimizer = optimizer, optimizer.optimizer
    return (outer, optimizer) if outer is not None and hasattr(optimizer, "parameters_of_groups") else (None, None)


def parameters(optimizer: Any) -> list[Any]:
    """The parameters that an optimizer trains, in its order, whether DeepSpeed has shared them out or not."""
    inner = _parts(optimizer)[1]
    groups = [group["params"] for group in optimizer.param_groups] if inner is None else inner.parameters_of_groups
    return [parameter for group in groups for parameter in group]


def is_shared_out(optimizer: Any) -> bool:
    """Whether DeepSpeed holds this optimizer's state."""
    return _parts(optimizer)[0] is not None


def _flat_shares(outer: Any) -> list[torch.Tensor]:
    """This process's share of each group (ZeRO-2) or part of a group (ZeRO-3), which torch's optimizer moves."""
    shares = getattr(outer, "single_partition_of_fp32_groups", None)
    return list(outer.fp32_partitioned_groups_flat if shares is None else shares)


def _link(outer: Any) -> None:
    """Tie weights to their state under ZeRO-2: it does so after the step of its first group, before others have one."""
    if hasattr(outer, "_lazy_init_hp_params_optimizer_state"):
        outer._hp_optimizer_states_linked = False
        outer._lazy_init_hp_params_optimizer_state()


def _whole(parameter: Any, name: str, value: Any, share: torch.Tensor) -> Any:
    """One state of a parameter, put together where it is one number a weight; all processes must call this."""
    import torch
    from deepspeed.utils import safe_get_full_optimizer_state

    if not torch.is_tensor(value):
        return value
    if value.shape == share.shape:
        return safe_get_full_optimizer_state(parameter, name).cpu()
    # A counter of its own for each parameter: torch's optimizers count up in place.
    return value.detach().cpu().clone()


def whole_optimizer(optimizer: Any, *, keep: bool) -> dict[str, Any]:
    """State of an optimizer as one process would have it, where `keep`; all processes must call this."""
    outer, inner = _parts(optimizer)
    # Every process has stepped as often, so what is not one number a weight is the same for all shares.
    share = _flat_shares(outer)[0]
    layout = inner.state.get(share, {})
    if layout:
        _link(outer)
    state: dict[int, dict[str, Any]] = {}
    groups: list[dict[str, Any]] = []
    for group, parameters in zip(inner.param_groups, inner.parameters_of_groups, strict=True):
        first = sum(len(before["params"]) for before in groups)
        groups.append({**group, "params": list(range(first, first + len(parameters)))})
        for index, parameter in enumerate(parameters, start=first):
            values = {name: _whole(parameter, name, value, share) for name, value in layout.items()}
            if values and keep:
                state[index] = values
    return {"state": state, "param_groups": groups}


def _put(parameter: Any, name: str, value: torch.Tensor) -> None:
    """Put this process's share of one state of a parameter in its place."""
    import torch
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if not hasattr(parameter, "ds_id"):
        safe_set_full_optimizer_state(parameter, value.to(parameter.device), name)
        return
    # All shares of ZeRO-3 are of one size, the last ones padded, which its function for whole values does not know.
    size = parameter.ds_tensor.numel()
    rank = torch.distributed.get_rank()
    mine = value.flatten()[rank * size : (rank + 1) * size]
    share = torch.zeros(size, dtype=value.dtype)
    share[: mine.numel()] = mine
    safe_set_local_optimizer_state(parameter, share.to(parameter.ds_tensor.device), name)


def load_optimizer(optimizer: Any, saved: Mapping[str, Any]) -> None:
    """Put this process's share of what `whole_optimizer` gave into an optimizer of DeepSpeed."""
    import torch

    outer, inner = _parts(optimizer)
    for group, values in zip(inner.param_groups, saved["param_groups"], strict=True):
        group.update({name: value for name, value in values.items() if name != "params"})
    if not saved["state"]:
        return
    layout = next(iter(saved["state"].values()))
    each = [name for name, value in layout.items() if torch.is_tensor(value) and name != "step"]
    for share in _flat_shares(outer):
        inner.state[share] = {
            name: torch.zeros_like(share) if name in each else value.clone() if torch.is_tensor(value) else value
            for name, value in layout.items()
        }
    _link(outer)
    places = parameters(optimizer)
    for index, values in saved["state"].items():
        for name in each:
            _put(places[index], name, values[name])
