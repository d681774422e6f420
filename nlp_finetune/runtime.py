"""The process a run lives in: its rank among others (`joining` connects them), seed, log, and memory.

torch is imported inside functions: importing this module is cheap.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nlp_finetune import strategy as strategies
from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.strategy import Strategy

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("nlp_finetune")
T = TypeVar("T")
_BEAT_S = 1.0
"""How often a process that works alone says that it is there."""


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
            with self._heard():
                try:
                    answer[0] = action()
                except NlpFinetuneError as error:
                    answer[1] = error
        else:
            self._listen()
        dist.broadcast_object_list(answer, src=0, group=self.patient)
        if answer[1] is not None:
            raise answer[1]
        result: T = answer[0]
        return result

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Let the others hear every second that this process is still there, until the block is over."""
        over, lost = threading.Event(), list[BaseException]()

        def beat() -> None:
            try:
                while not self._beat(is_last=over.wait(_BEAT_S)):
                    pass
            except RuntimeError as error:
                lost.append(error)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if lost:
            raise lost[0]

    def _listen(self) -> None:
        """Wait while the main process works alone; a silence as long as the network's time-out is an error."""
        while not self._beat():
            pass

    def _beat(self, *, is_last: bool = False) -> bool:
        """Send from the main process, or receive elsewhere, that it is there; whether this was the last time."""
        import torch
        import torch.distributed as dist

        flag = torch.tensor([is_last], dtype=torch.uint8)
        dist.broadcast(flag, src=0, group=self.control_group)
        return bool(flag.item())


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
