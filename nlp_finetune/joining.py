"""Joining the processes of a run: what the launcher announced, connected and checked.

`start` is called once, first thing, by every verb that computes; nothing else in the package reads
the launcher's environment variables. torch is imported inside functions: importing this module is
cheap.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import signal
import sys
from datetime import timedelta
from typing import Any

from nlp_finetune import allocator
from nlp_finetune import strategy as strategies
from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.network import choose_interface, first_line
from nlp_finetune.runtime import Runtime, available_cores, logger, set_up_libraries
from nlp_finetune.strategy import DEEPSPEED

_TIMEOUT_S = 1800.0
"""How long a process waits for another in training."""
_PATIENCE_S = 6 * 3600.0
"""How long a process waits while another works alone."""


def announced() -> int:
    """Number of processes that the launcher announced; known before they are connected."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def announced_rank() -> int:
    """Rank of this process according to the launcher."""
    return int(os.environ.get("RANK", "0"))


def start(*, threads: int | str = "auto", timeout_s: float | None = None) -> Runtime:
    """Join the process group that the launcher announced, set threads, and quiet the libraries.

    A process that waits for another in training gives up after `timeout_s` seconds (half an hour).
    Raises `InputError` if what the launcher asked for cannot be had here, or is not what came about.
    """
    _die_with_launcher()
    set_up_libraries()
    import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers

    import torch  # isort: skip

    strategy = strategies.asked(os.environ)
    reshard = strategies.take_fsdp(os.environ) if strategy == "fsdp" else True
    # `accelerate launch --cpu` means it on a machine with GPUs, too.
    on_cpu = not torch.accelerator.is_available() or strategies.is_on(os.environ, "ACCELERATE_USE_CPU")
    strategies.check_possible(os.environ, has_accelerator=not on_cpu)
    if strategy in DEEPSPEED:
        strategies.prepare_deepspeed(os.environ, has_accelerator=not on_cpu)
    elif on_cpu:
        # Without it torchrun on a CPU starts unconnected trainings (accelerate reads it once, at start).
        os.environ["ACCELERATE_USE_CPU"] = "true"
    elif "RANK" not in os.environ and torch.cuda.device_count() > 1:
        # One process and several GPUs: transformers would fall back to DataParallel.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        logger.info("one process: using the first GPU; `accelerate launch` uses all of them")
    from accelerate import PartialState

    choose_interface()
    timeout = timedelta(seconds=_TIMEOUT_S if timeout_s is None else timeout_s)
    try:
        # accelerate runs DeepSpeed only where it is not told to use the CPU, and then knows no backend for one.
        how = ({"backend": "gloo"} if on_cpu else {}) if strategy in DEEPSPEED else {"cpu": on_cpu}
        state = PartialState(**how, timeout=timeout)
        patient = _patient_group() if state.num_processes > 1 else None
    except RuntimeError as error:
        raise NlpFinetuneError(f"the processes did not meet: {first_line(error)}. `doctor` says why.") from error
    strategies.check_in_force(strategy, announced=announced(), connected=state.num_processes)
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes))
    count = _thread_count(threads, local_processes, on_cpu=state.device.type == "cpu")
    torch.set_num_threads(count)
    if state.process_index != 0:
        logger.setLevel(logging.WARNING)
    _show_downloads_only(on=state.process_index == 0)
    if state.device.type == "cpu":
        keeps_freed_memory()
    on_gpus = state.num_processes > 1 and state.device.type != "cpu"
    return Runtime(
        control_group=torch.distributed.new_group(backend="gloo", timeout=timeout) if on_gpus else None,
        rank=state.process_index,
        processes=state.num_processes,
        local_rank=state.local_process_index,
        local_processes=local_processes,
        device=state.device,
        threads=count,
        strategy=strategy,
        backend=state.backend,
        reshard=reshard,
        patient=patient,
    )


@functools.cache
def keeps_freed_memory() -> bool:
    """Let this process keep what it frees, once; gives whether it does."""
    reason = allocator.keep_freed_memory()
    if reason is None:
        logger.info("memory: what a step frees is kept for the next one")
    else:
        logger.debug("memory that a step frees is not kept: %s", reason)
    return reason is None


@functools.cache
def _patient_group() -> Any:
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=timedelta(seconds=_PATIENCE_S))


def _thread_count(threads: int | str, local_processes: int, *, on_cpu: bool) -> int:
    """Threads of this process. `accelerate launch` sets OMP_NUM_THREADS=1, which idles other cores."""
    if isinstance(threads, int):
        return threads
    count = max(1, available_cores() // local_processes)
    return count if on_cpu else min(count, 8)


def _show_downloads_only(*, on: bool) -> None:
    """Keep the Hub client's bars, on one process: a download is long. Hide transformers' own."""
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it hides the Hub's bars too
    if on and not HF_HUB_DISABLE_PROGRESS_BARS:
        enable_progress_bars()


def _die_with_launcher() -> None:
    """Ask for SIGTERM when the launcher dies; without it a worker would go on as an orphan (Linux)."""
    launched = "RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ
    if sys.platform == "linux" and launched:
        death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None, use_errno=True).prctl(death_signal, signal.SIGTERM)
