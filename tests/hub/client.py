"""A process of its own that takes the test server for the Hub, for many commands.

The addresses and folders of the Hub's client are read from the environment when it is imported, so
this cannot be the process of the tests. It imports the heavy libraries once and runs each command in
a fork: nothing that one command leaves in memory reaches the next.

    python -m tests.hub.client          commands are lines of JSON on stdin, results on stdout
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

TIMEOUT_S = 120
_PRELOADED = (
    "nlp_finetune.torchvision_guard", "tests.preload", "nlp_finetune.inference", "nlp_finetune.runs.publishing",
    "huggingface_hub.hf_api", "huggingface_hub.repocard", "huggingface_hub._commit_api",
)  # fmt: skip
"""In this order: the guard goes before the first import of transformers."""


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class Client:
    """The process, from the side of the tests."""

    def __init__(self, environment: dict[str, str], *, cwd: Path, project: Path) -> None:
        self.folder = cwd
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(("HF_", "TRANSFORMERS_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub.client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**inherited, "PYTHONPATH": str(project), **environment},
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process.stdout.close()

    def run(self, *words: object, **environment: str) -> Done:
        """Run `run.py WORDS`."""
        return self._send({"words": [str(word) for word in words], "environment": environment})

    def python(self, code: str, **environment: str) -> Done:
        """Run Python code."""
        return self._send({"code": code, "environment": environment})

    def kill(self) -> None:
        """Kill the command that is running, as the system would (called from another thread)."""
        os.kill(self._child, signal.SIGKILL)

    def _send(self, command: dict[str, Any]) -> Done:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({**command, "folder": folder}), file=self._process.stdin, flush=True)
            self._child = int(self._process.stdout.readline())
            code = int(self._process.stdout.readline())
            out, err = (Path(folder, name).read_text("utf-8") for name in ("out", "err"))
            return Done(code, out, err)


def _serve() -> None:
    for module in _PRELOADED:
        importlib.import_module(module)
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(command)
        print(child, flush=True)
        deadline = time.monotonic() + TIMEOUT_S
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.005)
        print(os.waitstatus_to_exitcode(ended[1]), flush=True)
    # Taking the heavy libraries down in good order takes seconds.
    os._exit(0)


def _run(command: dict[str, Any]) -> None:
    """The fork: run the command, its output in files, and leave."""
    code = 99
    try:
        for descriptor, name, stream in ((1, "out", "stdout"), (2, "err", "stderr")):
            os.dup2(os.open(Path(command["folder"], name), os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
            setattr(sys, stream, os.fdopen(os.dup(descriptor), "w", encoding="utf-8", buffering=1))
        os.environ.update(command["environment"])
        _hurry()
        if "code" in command:
            exec(command["code"], {})
            code = 0
        else:
            sys.argv = ["run.py", *command["words"]]
            from nlp_finetune.cli import main

            code = main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _hurry() -> None:
    """Cut the pauses between retries, ours and the client's, to almost nothing; say how long they were."""
    sleep = time.sleep

    def short_sleep(seconds: Any) -> None:
        if seconds >= 1:
            print(f"slept {seconds}", file=sys.stderr)
        sleep(min(seconds, 0.01))

    time.sleep = short_sleep


if __name__ == "__main__":
    _serve()
