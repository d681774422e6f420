"""A small stand-in for Slurm: sbatch, srun and scontrol with real processes and the variables that Slurm sets.

`install(folder)` writes the three commands; each is this file under another name. As with Slurm, `srun` starts
one process a task, `--signal` goes to the tasks and not to the batch shell, and a requeued job starts its script
again from the top.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

JOB = "4242"


def install(folder: Path) -> Path:
    """Write the commands into a folder that goes first on PATH."""
    for name in ("sbatch", "srun", "scontrol"):
        command = folder / name
        command.write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
        command.chmod(0o755)
    return folder


def sbatch(script: str) -> int:
    """Run a job to its end, as often as it is requeued; say so as sbatch does."""
    text = Path(script).read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.M))
    place = Path(os.environ["STANDIN"])
    nodes, tasks = int(options["nodes"]), int(options["ntasks-per-node"])
    first, last = map(int, options["array"].split("-")) if "array" in options else (0, 0)
    for index in range(first, last + 1):
        environment = {
            **os.environ,
            "SLURM_JOB_ID": str(int(JOB) + index),
            "SLURM_JOB_NODELIST": f"node[1-{nodes}]",
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_NTASKS": str(nodes * tasks),
            "SLURM_NTASKS_PER_NODE": str(tasks),
            "SLURM_ARRAY_TASK_ID": str(index),
            "USER": "somebody",
        }
        output = options["output"].replace("%x", options["job-name"]).replace("%j", JOB)
        output = output.replace("%A", JOB).replace("%a", str(index))
        for attempt in range(9):
            (place / "requeue").unlink(missing_ok=True)
            environment["SLURM_RESTART_COUNT"] = str(attempt)
            with open(output, "a") as log:
                job = subprocess.Popen(["bash", script], env=environment, stdout=log, stderr=log)
                _signal_once(job, place)
            if not (place / "requeue").is_file():
                break
    print(f"Submitted batch job {JOB}")
    return job.returncode


def _signal_once(job: subprocess.Popen, place: Path) -> None:
    """Until the job ends, look whether the time has come to signal its tasks: when a file has so many lines."""
    trigger = place / "signal"
    while job.poll() is None:
        if trigger.is_file():
            file, lines, name = trigger.read_text().split("|")
            if Path(file).is_file() and len(Path(file).read_text().splitlines()) >= int(lines):
                trigger.unlink()
                for pid in (place / "tasks").read_text().split():
                    os.kill(int(pid), getattr(signal, name))
        time.sleep(0.02)


def srun(words: list[str]) -> int:
    """One process a task; the highest exit code."""
    options = [word for word in words if word.startswith("--")][: next(i for i, w in enumerate(words) if w[0] != "-")]
    command = words[len(options) :]
    output = next((word.partition("=")[2] for word in options if word.startswith("--output=")), None)
    per_node = int(os.environ["SLURM_NTASKS_PER_NODE"])
    processes = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        number = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank % per_node, "SLURM_NODEID": rank // per_node}
        environment = {**os.environ, **{name: str(value) for name, value in number.items()}}
        stream = open(output.replace("%t", str(rank)), "a") if output else None  # noqa: SIM115
        processes.append(subprocess.Popen(command, env=environment, stdout=stream, stderr=stream))
    (Path(os.environ["STANDIN"]) / "tasks").write_text(" ".join(str(process.pid) for process in processes))
    return max(process.wait() for process in processes)


def scontrol(words: list[str]) -> int:
    """`show hostnames` and `requeue`."""
    if words[:2] == ["show", "hostnames"]:
        print("127.0.0.1\n" * int(os.environ["SLURM_JOB_NUM_NODES"]), end="")
    elif words[0] == "requeue":
        (Path(os.environ["STANDIN"]) / "requeue").touch()
    return 0


if __name__ == "__main__":
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    sys.exit(
        {"sbatch": lambda: sbatch(words[0]), "srun": lambda: srun(words), "scontrol": lambda: scontrol(words)}[name]()
    )
