"""Run the real command line many times without importing torch each time.

`run` starts each command in a fresh process, forked from a server that has done nothing but import
the heavy libraries: the same code, file descriptors and exit codes as `python run.py`, seconds sooner.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
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
    return start(*arguments, cwd=cwd).wait(timeout_s)


class Started:
    """A command that is running. `before` is called in its process first."""

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        before: Callable[[], None] | None,
    ) -> None:
        self._output = tempfile.TemporaryDirectory()
        self.arguments = [str(argument) for argument in arguments]
        out, err = (str(Path(self._output.name, name)) for name in ("out", "err"))
        given = (self.arguments, str(cwd), out, err, dict(environment), before)
        self.process = _server.Process(target=_child, args=given)
        self.process.start()

    @property
    def stderr(self) -> str:
        """What it has printed to stderr so far."""
        file = Path(self._output.name, "err")
        return file.read_text("utf-8") if file.is_file() else ""

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def until(self, condition: Callable[[], bool], timeout_s: float = 120) -> None:
        """Wait until something is true while the command runs."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert self.process.is_alive(), self.stderr[-2000:]
            assert time.monotonic() < end, self.stderr[-2000:]
            time.sleep(0.003)

    def wait(self, timeout_s: float = 240) -> Done:
        """Wait for the end; a negative code is the signal that ended it."""
        self.process.join(timeout_s)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"{self.arguments} did not end in {timeout_s} s: {self.stderr[-2000:]}")
        with self._output:
            out = Path(self._output.name, "out")
            return Done(self.process.exitcode or 0, out.read_text("utf-8") if out.is_file() else "", self.stderr)


def start(
    *arguments: object,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Started:
    """Start `run.py ARGUMENTS` in a folder and go on."""
    return Started(arguments, cwd=cwd, environment=environment or {}, before=before)


def start_all(
    count: int,
    *arguments: object,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> list[Started]:
    """Start the connected processes of one run, as a launcher does."""
    if count == 1:
        return [start(*arguments, cwd=cwd, environment=environment, before=before)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    size = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    given = {**(environment or {}), **address, **size}
    return [start(*arguments, cwd=cwd, environment={**given, **rank}, before=before) for rank in ranks]


def _child(
    arguments: Sequence[str],
    cwd: str,
    out: str,
    err: str,
    environment: Mapping[str, str],
    before: Callable[[], None] | None,
) -> None:
    os.chdir(cwd)
    os.environ.update(environment)
    sys.argv = ["run.py", *arguments]
    for path, descriptor, name in ((out, 1, "stdout"), (err, 2, "stderr")):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
        setattr(sys, name, os.fdopen(os.dup(descriptor), "w", encoding="utf-8", buffering=1))
    if before is not None:
        before()
    from nlp_finetune.cli import main

    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
