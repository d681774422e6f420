"""Job scripts: a recipe and some options become a script for Slurm, or for torchrun on any machines."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nlp_finetune
from nlp_finetune.errors import InputError
from nlp_finetune.strategy import DEEPSPEED

_HERE = Path(__file__).parent
_TIME = re.compile(r"(\d+-)?\d{1,3}(:\d{2}){0,2}")


@dataclass(frozen=True)
class Job:
    """What a script is written from.

    `arguments` are those of `train`, without `output_dir`; `run` is the run's folder, on a disk that all
    machines see. `seeds` makes one run of each in `run/seed-N`. `offline` keeps the Hub's client from asking.
    """

    name: str
    run: Path
    arguments: Sequence[str]
    nodes: int = 1
    processes_per_node: int = 1
    gpus_per_node: int = 0
    strategy: str = "ddp"
    cpus_per_process: int | None = None
    memory: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    seeds: Sequence[int] = ()
    signal_s: int = 120
    timeout_s: int = 1800
    max_requeues: int = 50
    local_disk: str | None = None
    offline: bool = False
    setup: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        """Where the script and the logs are: beside the run, which holds nothing but itself."""
        return self.run.with_name(f"{self.run.name}.job")

    def check(self) -> None:
        """Raise `InputError` for options that make no job."""
        if self.time is not None and not _TIME.fullmatch(self.time):
            raise InputError(f"--time {self.time}: minutes, HH:MM:SS or D-HH:MM:SS.")
        for value, name in (
            (self.nodes, "--nodes"),
            (self.processes_per_node, "--processes-per-node"),
            (self.signal_s, "--signal-before"),
            (self.timeout_s, "--timeout"),
        ):
            if value < 1:
                raise InputError(f"{name} {value}: at least 1.")
        if len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"--seeds {','.join(map(str, self.seeds))}: one of them stands there twice.")
        if self.seeds and any(word.startswith("train.seed=") for word in self.arguments):
            raise InputError("--seeds and train.seed: give one of them.")
        if any(word.startswith("output_dir=") for word in self.arguments):
            raise InputError("output_dir: the script sets it; give --run FOLDER.")


def slurm(job: Job, *, file: Path) -> str:
    """Script for `sbatch`. Raises `InputError` for options that make no job."""
    job.check()
    resources = {
        "gpus-per-node": job.gpus_per_node or None,
        "cpus-per-task": job.cpus_per_process,
        "mem": job.memory,
        "time": job.time,
        "partition": job.partition,
        "account": job.account,
        "constraint": job.constraint,
        "array": f"0-{len(job.seeds) - 1}" if job.seeds else None,
    }
    return _fill(
        "slurm.sh",
        job,
        file=str(file),
        job_name=job.name,
        resources="\n".join(f"#SBATCH --{name}={value}" for name, value in resources.items() if value is not None),
        log_name="%x-%A_%a" if job.seeds else "%x-%j",
        logs=str(job.folder / "logs"),
        signal_s=str(job.signal_s),
        wait_s="120",
        seeds=_run_of(job, index="$SLURM_ARRAY_TASK_ID"),
        local_disk=shlex.quote(job.local_disk)
        if job.local_disk
        else '"${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/nlp_finetune-$USER"',
    )


def torchrun(job: Job, *, file: Path) -> str:
    """Script for every machine of a job without Slurm. Raises `InputError` for options that make no job."""
    job.check()
    which = {"partition": job.partition, "account": job.account, "time": job.time, "mem": job.memory}
    for name, value in which.items():
        if value is not None:
            raise InputError(f"--{name}: Slurm's; `launch torchrun` has no use for it.")
    many = f"NODE_RANK=0 MASTER_ADDR=10.0.0.1 bash {shlex.quote(str(file))}   (NODE_RANK 0 to {job.nodes - 1})"
    how = many if job.nodes > 1 else f"bash {shlex.quote(str(file))}"
    how += f"   (SEED_INDEX 0 to {len(job.seeds) - 1} before it)" if job.seeds else ""
    return _fill(
        "torchrun.sh",
        job,
        how=how,
        seeds=_run_of(job, index="${SEED_INDEX:?which of the seeds, from 0}"),
        local_disk=shlex.quote(job.local_disk) if job.local_disk else '"${TMPDIR:-/tmp}/nlp_finetune-$USER"',
    )


def _fill(template: str, job: Job, **more: str) -> str:
    program = _program()
    values = {
        "nodes": str(job.nodes),
        "tasks": str(job.processes_per_node),
        "program": shlex.join(program),
        "python": program[0],
        "directory": shlex.quote(str(Path.cwd())),
        "arguments": shlex.join(job.arguments),
        "timeout_s": str(job.timeout_s),
        "max_requeues": str(job.max_requeues),
        "environment": "\n".join(_environment(job)),
        "setup": "\n".join(job.setup),
        **more,
    }
    text = (_HERE / template).read_text(encoding="utf-8")
    filled = re.sub(r"@\{([a-z_]+)\}", lambda match: values[match.group(1)], text)
    return re.sub(r"\n{3,}", "\n\n", filled)


def _program() -> list[str]:
    """Python and the script, by their full paths: batch jobs start elsewhere and with another PATH."""
    checkout = Path(nlp_finetune.__file__).resolve().parent.parent / "run.py"
    installed = Path(sys.executable).parent / "nlp-finetune"
    return [sys.executable, str(checkout if checkout.is_file() else installed)]


def _run_of(job: Job, *, index: str) -> str:
    """Lines that set the folder of the run, and of its logs; of several seeds, the one that this job trains."""
    run, logs = shlex.quote(str(job.run)), shlex.quote(str(job.folder / "logs"))
    if not job.seeds:
        return f"run={run}\nlogs={logs}"
    seeds = " ".join(map(str, job.seeds))
    return (
        f"seeds=({seeds})\nseed=${{seeds[{index}]}}\n"
        f'run={run}/seed-$seed\nlogs={logs}/seed-$seed\narguments+=("train.seed=$seed")'
    )


def _environment(job: Job) -> list[str]:
    lines = []
    if job.offline:
        lines.append("# Compute nodes without a way out: only what is cached or local, and no waiting for an answer.")
        lines.append("export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1")
    if job.gpus_per_node:
        lines.append("# NCCL gives up and says so instead of waiting for a process that is gone.")
        lines.append("export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 TORCH_NCCL_BLOCKING_WAIT=1")
    if job.strategy == "fsdp":
        lines.append("export ACCELERATE_USE_FSDP=true FSDP_VERSION=2")
    if job.strategy in DEEPSPEED:
        stage = job.strategy.removeprefix("zero")
        lines.append(f"export ACCELERATE_USE_DEEPSPEED=true ACCELERATE_DEEPSPEED_ZERO_STAGE={stage}")
    return lines
