"""The verb that writes a job script from a recipe: launch."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

from nlp_finetune.cli import output
from nlp_finetune.cli.recipes import add_recipe_arguments, load_recipe
from nlp_finetune.errors import EXIT_DONE, InputError, NlpFinetuneError
from nlp_finetune.runtime import set_up_log

_OURS = "Written by `nlp-finetune launch"


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `launch`."""
    parser.add_argument("kind", choices=("slurm", "torchrun"), help="who starts the processes")
    add_recipe_arguments(parser)
    parser.add_argument("--run", metavar="FOLDER", help="folder of the run, seen by all machines (runs/NAME-TIME)")
    parser.add_argument("--nodes", type=int, default=1, help="machines (1)")
    parser.add_argument("--gpus-per-node", type=int, default=0, metavar="N", help="GPUs of each (0)")
    parser.add_argument("--processes-per-node", type=int, metavar="N", help="processes of each, without GPUs (1)")
    parser.add_argument(
        "--strategy", choices=("ddp", "fsdp", "zero2", "zero3"), default="ddp", help="see accelerate_configs/README.md"
    )
    parser.add_argument("--seeds", metavar="A,B,C", help="a run of each seed, in an array of jobs")
    parser.add_argument("--time", metavar="HH:MM:SS", help="time limit")
    parser.add_argument("--partition", help="Slurm partition")
    parser.add_argument("--account", help="Slurm account")
    parser.add_argument("--constraint", help="Slurm constraint")
    parser.add_argument("--cpus-per-process", type=int, metavar="N", help="cores of each process")
    parser.add_argument("--mem", help="main memory of each machine, like 64G")
    parser.add_argument(
        "--signal-before", type=int, default=120, metavar="SECONDS", help="save so long before the time is up (120)"
    )
    parser.add_argument("--max-requeues", type=int, default=50, metavar="N", help="most times a job is requeued (50)")
    parser.add_argument(
        "--timeout", type=int, default=1800, metavar="SECONDS", help="most a process waits for another (1800)"
    )
    parser.add_argument("--local-disk", metavar="FOLDER", help="disk of each machine, for caches (its temporary one)")
    parser.add_argument("--offline", action="store_true", help="never ask the Hub: compute nodes have no way out")
    parser.add_argument("--setup", action="append", default=[], metavar="LINE", help="shell line run first")
    parser.add_argument("--submit", action="store_true", help="hand the script to sbatch")
    parser.add_argument("--dry-run", action="store_true", help="print the script and write nothing")


def launch(arguments: argparse.Namespace) -> int:
    """Write the script of a job, and say how it is started."""
    set_up_log(quiet=arguments.quiet)
    from nlp_finetune.cluster import jobs

    recipe = load_recipe(arguments).recipe
    if arguments.submit and arguments.kind != "slurm":
        raise InputError("--submit: there is nobody to hand a torchrun script to; run it on each machine.")
    if arguments.gpus_per_node and arguments.processes_per_node not in (None, arguments.gpus_per_node):
        raise InputError("--processes-per-node: with --gpus-per-node there is one process for each GPU.")
    run = Path(arguments.run or f"runs/{recipe.name}-{datetime.now():%Y%m%d-%H%M%S}").absolute()
    job = jobs.Job(
        name=recipe.name,
        run=run,
        arguments=_train_arguments(arguments),
        nodes=arguments.nodes,
        processes_per_node=arguments.gpus_per_node or arguments.processes_per_node or 1,
        gpus_per_node=arguments.gpus_per_node,
        strategy=arguments.strategy,
        cpus_per_process=arguments.cpus_per_process,
        memory=arguments.mem,
        time=arguments.time,
        partition=arguments.partition,
        account=arguments.account,
        constraint=arguments.constraint,
        seeds=_seeds(arguments.seeds),
        signal_s=arguments.signal_before,
        timeout_s=arguments.timeout,
        max_requeues=arguments.max_requeues,
        local_disk=arguments.local_disk,
        offline=arguments.offline,
        setup=arguments.setup,
    )
    file = job.folder / f"{arguments.kind}.sh"
    script = (jobs.slurm if arguments.kind == "slurm" else jobs.torchrun)(job, file=file)
    if arguments.dry_run:
        print(script, end="")
        return EXIT_DONE
    _write(file, script)
    if arguments.submit:
        _submit(file)
    else:
        start = "sbatch" if arguments.kind == "slurm" else "bash"
        output.line(f"written: {file}\nstart it with: {start} {file}")
    return EXIT_DONE


def _train_arguments(arguments: argparse.Namespace) -> list[str]:
    """What `train` is called with: files by their full paths, because jobs start elsewhere."""
    recipe = Path(arguments.recipe)
    given = str(recipe.absolute()) if recipe.exists() else arguments.recipe
    return ["--recipe", given, *(["--demo"] if arguments.demo else []), *arguments.overrides]


def _seeds(text: str | None) -> list[int]:
    try:
        return [int(word) for word in text.split(",")] if text else []
    except ValueError as error:
        raise InputError(f"--seeds {text}: whole numbers with commas between them, like 13,14,15.") from error


def _write(file: Path, script: str) -> None:
    if file.is_file() and _OURS not in file.read_text(encoding="utf-8", errors="replace")[:200]:
        raise InputError(f"{file} is there and was not written by this verb: choose another --run.")
    try:
        (file.parent / "logs").mkdir(parents=True, exist_ok=True)
        file.write_text(script, encoding="utf-8")
        file.chmod(0o755)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror}). Give another --run.") from error


def _submit(file: Path) -> None:
    if shutil.which("sbatch") is None:
        raise InputError(f"--submit: there is no sbatch here. The script is written: {file}")
    done = subprocess.run(["sbatch", str(file)], capture_output=True, text=True)
    if done.returncode != 0:
        raise NlpFinetuneError(f"sbatch refused {file}: {done.stderr.strip()}")
    output.line(done.stdout.strip())
