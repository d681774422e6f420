"""Run the real command line many times without importing torch each time.

`run` starts each command in a fresh process, forked from a server that has done nothing but import
the heavy libraries: the same code, file descriptors and exit codes as `python run.py`, seconds sooner.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["tests.preload"])


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    stdout: str
    stderr: str


def run(*arguments: object, cwd: Path, timeout_s: float = 240) -> Done:
    """Run `run.py ARGUMENTS` in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _server.Process(target=_child, args=([str(a) for a in arguments], str(cwd), str(out), str(err)))
        process.start()
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"{arguments} did not end in {timeout_s} s: {err.read_text()[-2000:]}")
        return Done(process.exitcode or 0, out.read_text("utf-8"), err.read_text("utf-8"))


def _child(arguments: Sequence[str], cwd: str, out: str, err: str) -> None:
    os.chdir(cwd)
    sys.argv = ["run.py", *arguments]
    for path, descriptor, name in ((out, 1, "stdout"), (err, 2, "stderr")):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
        setattr(sys, name, os.fdopen(os.dup(descriptor), "w", encoding="utf-8", buffering=1))
    from nlp_finetune.cli import main

    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
