"""How the processes of a run divide the work: what the launcher asked for, and whether it is in force.

accelerate hands its configuration on as environment variables, and where something does not fit it
takes the next best thing without a word: FSDP on a CPU becomes DDP, several CPU processes become
one. Here the first is done by ourselves, and the second is an error.
DeepSpeed is left to transformers' Trainer, with a configuration of ours.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping, MutableMapping
from typing import Literal

from nlp_finetune.errors import InputError

Strategy = Literal["single", "ddp", "fsdp", "zero2", "zero3"]
"""`single`: one process. `ddp`: each process holds the whole model and a share of the rows. `fsdp`: so with
a share of weights, gradients and optimizer too. `zero2`: DeepSpeed, with a share of gradients and optimizer.
`zero3`: DeepSpeed, with a share of the weights as well."""

DEEPSPEED: tuple[Strategy, ...] = ("zero2", "zero3")
"""Strategies that are DeepSpeed's."""
SHARDED: tuple[Strategy, ...] = ("fsdp", *DEEPSPEED)
"""Strategies under which no process holds the whole state of training."""

_UNSUPPORTED = {
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context or sequence parallelism (parallelism_config)",
    "ACCELERATE_USE_SAGEMAKER": "SageMaker's own launcher",
}
_CONFIGURATIONS = "The configurations that work are in accelerate_configs/."


def asked(environment: Mapping[str, str]) -> Strategy:
    """The strategy that the launcher's variables ask for.

    Raises `InputError` for one that no engine knows, and where a launcher asked for several processes
    and started one.
    """
    for variable, name in _UNSUPPORTED.items():
        if is_on(environment, variable):
            raise InputError(f"{name} was asked for, and neither engine supports it. {_CONFIGURATIONS}")
    if is_on(environment, "ACCELERATE_USE_DEEPSPEED"):
        return _zero(environment)
    if is_on(environment, "ACCELERATE_USE_FSDP"):
        if environment.get("FSDP_VERSION", "1") != "2":
            raise InputError("FSDP version 1 was asked for; set `fsdp_version: 2`, as in accelerate_configs/fsdp.yaml.")
        return "fsdp"
    if "RANK" in environment:
        return "ddp" if int(environment.get("WORLD_SIZE", "1")) > 1 else "single"
    if "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_ADDR" in environment:
        # accelerate's launcher of single processes sets the address only where more than one was asked for.
        raise InputError(
            "accelerate was asked for several processes and started one: it hands `distributed_type: MULTI_CPU` and "
            "`--cpu --num_processes N` to mpirun. Use `accelerate launch --config_file accelerate_configs/ddp.yaml "
            "--num_processes N run.py ...`, which runs on CPUs too. (If this is one process, unset MASTER_ADDR.)"
        )
    return "single"


_NOT_OFFLOADED = ("", "none")
_ZERO_REFUSED = {
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "offload_optimizer_device",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "offload_param_device",
    "ACCELERATE_DEEPSPEED_CONFIG_FILE": "deepspeed_config_file",
}


def _zero(environment: Mapping[str, str]) -> Strategy:
    """The stage of DeepSpeed that is asked for; raises `InputError` for what would be ignored."""
    stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if stage not in ("2", "3"):
        raise InputError(f"DeepSpeed with zero_stage {stage}: not supported; use 2 or 3. {_CONFIGURATIONS}")
    for variable, name in _ZERO_REFUSED.items():
        value = environment.get(variable, "")
        if value not in _NOT_OFFLOADED:
            raise InputError(f"{name} {value}: not supported; take it out. {_CONFIGURATIONS}")
    if is_on(environment, "ACCELERATE_DEEPSPEED_ZERO3_INIT"):
        raise InputError("zero3_init_flag: models are loaded whole, then shared out; set it to false.")
    if "RANK" not in environment:
        raise InputError("DeepSpeed was asked for without a launcher: start with accelerate launch or torchrun.")
    return "zero2" if stage == "2" else "zero3"


def prepare_deepspeed(environment: MutableMapping[str, str], *, has_accelerator: bool) -> None:
    """Make DeepSpeed fit this process before it connects: quiet, and on a CPU without a compiler.

    Raises `InputError` where it is not installed.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise InputError("DeepSpeed was asked for and is not installed: pip install 'nlp-finetune[deepspeed]'")
    # accelerate would compare its own settings, which are read here, with those that the Trainer is given.
    environment.pop("ACCELERATE_CONFIG_DS_FIELDS", None)
    if not has_accelerator:
        environment.setdefault("DS_ACCELERATOR", "cpu")
        # accelerate runs DeepSpeed only where it is not told to use the CPU; the device alone it takes.
        environment["ACCELERATE_TORCH_DEVICE"] = "cpu"
        environment.pop("ACCELERATE_USE_CPU", None)
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    logging.getLogger("accelerate.accelerator").setLevel(logging.ERROR)
    if not has_accelerator:
        # It would compile a collective of its own for one machine, for minutes; gloo does the same.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


_FSDP_REFUSED = {
    "FSDP_OFFLOAD_PARAMS": "fsdp_offload_params",
    "FSDP_ACTIVATION_CHECKPOINTING": "fsdp_activation_checkpointing",
}


def take_fsdp(environment: MutableMapping[str, str]) -> bool:
    """Take FSDP's settings from the environment, so that accelerate does not act on them; is resharding asked for?

    The package shards by itself (`models.sharding`): accelerate does so on accelerators only, and would
    run DDP on a CPU. Raises `InputError` for a setting that would be ignored.
    """
    for variable, name in _FSDP_REFUSED.items():
        if is_on(environment, variable):
            raise InputError(f"{name}: not supported; set it to false. {_CONFIGURATIONS}")
    if environment.get("FSDP_TRANSFORMER_CLS_TO_WRAP"):
        raise InputError("fsdp_transformer_layer_cls_to_wrap: blocks are found by structure; take it out.")
    environment.pop("ACCELERATE_USE_FSDP", None)
    return environment.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() not in ("false", "0")


def check_possible(environment: Mapping[str, str], *, has_accelerator: bool) -> None:
    """Raise `InputError` where this machine cannot run the strategy; called before processes connect."""
    if not has_accelerator and _wants_gpu(environment):
        raise InputError(
            f"GPU {environment['CUDA_VISIBLE_DEVICES']} was asked for, and torch sees none here (nvidia-smi; "
            "a CPU build of torch?). Use accelerate_configs/cpu.yaml."
        )


def _wants_gpu(environment: Mapping[str, str]) -> bool:
    """Whether accelerate's configuration named GPUs."""
    launched = "ACCELERATE_MIXED_PRECISION" in environment and not is_on(environment, "ACCELERATE_USE_CPU")
    return launched and environment.get("CUDA_VISIBLE_DEVICES", "")[:1].isdigit()


def check_in_force(strategy: Strategy, *, announced: int, connected: int) -> None:
    """Raise `InputError` where the processes that the launcher announced are not connected."""
    if strategy == "fsdp" and "RANK" not in os.environ:
        raise InputError("FSDP was asked for without a launcher: start with accelerate launch or torchrun.")
    if announced != connected:
        raise InputError(
            f"The launcher announced {announced} processes, but only {connected} is connected. "
            "Start with `accelerate launch --config_file accelerate_configs/ddp.yaml run.py ...` or torchrun."
        )


def describe(strategy: Strategy, *, processes: int, machines: int, device: str, backend: str | None) -> str:
    """One line for the log: which strategy is in force."""
    if strategy == "single":
        return f"strategy: one process, on {device}"
    where = f"{processes} processes on {machines} machines" if machines > 1 else f"{processes} processes"
    what = {
        "ddp": "DDP: each holds the whole model",
        "fsdp": "FSDP2: each holds a share of weights, gradients and optimizer",
        "zero2": "DeepSpeed ZeRO-2: each holds the weights and a share of gradients and optimizer",
        "zero3": "DeepSpeed ZeRO-3: each holds a share of weights, gradients and optimizer",
    }[strategy]
    return f"strategy: {what}; {where}, on {device} ({backend})"


def is_on(environment: Mapping[str, str], variable: str) -> bool:
    return environment.get(variable, "false").lower() in ("true", "1")
