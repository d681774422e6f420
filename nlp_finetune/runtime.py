"""The process a run lives in: ranks, threads, seed, log, and what the machine is.

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
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from nlp_finetune import strategy as strategies
from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.network import choose_interface, first_line
from nlp_finetune.strategy import DEEPSPEED, Strategy

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("nlp_finetune")
T = TypeVar("T")
_TIMEOUT_S = 1800.0
"""How long a process waits for another in training."""
_PATIENCE_S = 6 * 3600.0
"""How long a process waits while another works alone."""


@dataclass(frozen=True)
class Runtime:
    """Where this process stands among its peers.

    `threads` is what torch uses in this process; `reshard` tells FSDP to let go of gathered weights
    between the forward and the backward pass. `patient` is the group that waits while one process works
    alone (tokenizes, saves): that takes as long as it takes, and is no sign of a lost process.
    """

    rank: int
    processes: int
    local_rank: int
    local_processes: int
    device: torch.device
    threads: int
    strategy: Strategy = "single"
    backend: str | None = None
    reshard: bool = True
    patient: Any = None
    control_group: Any = None
    """Process group for messages that no GPU is to wait for; None is the default group."""

    @property
    def cores(self) -> int:
        """This process's share of the cores, at least one."""
        return max(1, available_cores() // self.local_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs, files and progress."""
        return self.rank == 0

    @property
    def described(self) -> str:
        """Which strategy is in force, for the log."""
        return strategies.describe(
            self.strategy,
            processes=self.processes,
            machines=-(-self.processes // self.local_processes),
            device=self.device.type,
            backend=self.backend,
        )

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.processes > 1:
            import torch.distributed as dist

            dist.barrier(group=self.patient)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process run the block first (it fills caches), then one of each machine, then the rest.

        The second wave finds a shared cache filled, and fills one that is on its machine's own disk.
        """
        wave = 0 if self.is_main else 1 if self.local_rank == 0 else 2
        for _ in range(wave):
            self.barrier()
        yield
        for _ in range(wave, 2):
            self.barrier()

    def gather(self, value: T) -> list[T]:
        """One picklable value from each process, in the order of ranks, on every process."""
        if self.processes == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.processes
        dist.all_gather_object(values, value)
        return values

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Which of these hold on any process: quick enough for every step, and no GPU waits for it."""
        if self.processes == 1:
            return flags
        import torch
        import torch.distributed as dist

        votes = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self.control_group)
        return tuple(bool(vote) for vote in votes.tolist())

    def share_statistics(self, model: torch.nn.Module) -> None:
        """Give every process the first one's statistics of BatchNorm: they differ by what each has seen."""
        if self.processes == 1:
            return
        import torch.distributed as dist
        from torch.nn.modules.batchnorm import _BatchNorm

        for part in model.modules():
            for buffer in part.buffers() if isinstance(part, _BatchNorm) else ():
                dist.broadcast(buffer, src=0)

    def on_main(self, action: Callable[[], T]) -> T:
        """Run `action` on the main process and give its result, or raise its error, everywhere.

        Without this, an error of the main process alone would leave the others waiting.
        """
        if self.processes == 1:
            return action()
        import torch.distributed as dist

        answer: list[Any] = [None, None]
        if self.is_main:
            try:
                answer[0] = action()
            except NlpFinetuneError as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0, group=self.patient)
        if answer[1] is not None:
            raise answer[1]
        result: T = answer[0]
        return result


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
    on_cpu = not torch.accelerator.is_available()
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
    on_gpus = state.num_processes > 1 and state.device.type != "cpu"
    return Runtime(
        control_group=torch.distributed.new_group(backend="gloo") if on_gpus else None,
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
def _patient_group() -> Any:
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=timedelta(seconds=_PATIENCE_S))


def _thread_count(threads: int | str, local_processes: int, *, on_cpu: bool) -> int:
    """Threads of this process. `accelerate launch` sets OMP_NUM_THREADS=1, which idles other cores."""
    if isinstance(threads, int):
        return threads
    count = max(1, available_cores() // local_processes)
    return count if on_cpu else min(count, 8)


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def set_up_libraries() -> None:
    """Set what the libraries read from the environment when they are imported.

    Called by the command line before the first import of torch. Our own lines say what the libraries
    would: nothing is printed twice.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Read when torch is imported: threads that spin while they wait lose 2 to 4 times the speed as soon
    # as anything else uses a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    # Python prints these to stderr from inside the libraries; none is about what the user did.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")


def set_seed(seed: int) -> None:
    """Seed Python, numpy and torch; every rank gets the same seed, so that replicas start equal."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class _ProgressAwareHandler(logging.StreamHandler[Any]):
    """Writes log lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        if "tqdm" in sys.modules:
            from tqdm import tqdm

            tqdm.write(self.format(record), file=sys.stderr)
        else:
            sys.stderr.write(self.format(record) + "\n")


def set_up_log(*, quiet: bool = False) -> None:
    """Send this package's log to stderr, one plain line a decision, and quiet the libraries'."""
    set_up_libraries()
    logger.handlers[:] = [_ProgressAwareHandler()]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


def program() -> str:
    """How this program was started, for commands to paste."""
    return "python run.py" if os.path.basename(sys.argv[0]) == "run.py" else "nlp-finetune"


def say(line: str) -> None:
    """Tell the user what was decided and why (main process only)."""
    logger.info(line)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: of the GPU where there is one, else resident memory of this process."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
