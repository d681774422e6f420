"""The process a run lives in."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_downloads_show_a_bar_and_loading_does_not() -> None:
    code = (
        "from nlp_finetune import joining; joining.start();"
        "from huggingface_hub.utils import are_progress_bars_disabled as hidden;"
        "from transformers.utils.logging import is_progress_bar_enabled as shown;"
        "from nlp_finetune.models.quiet import quiet;"
        "before = (hidden(), shown());\n"
        "with quiet(): inside = hidden()\n"
        "print(before, inside, hidden())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "(False, False) True False"


def test_a_launcher_that_asks_for_the_cpu_gets_it_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import accelerate, torch\n"
        "from nlp_finetune import joining\n"
        "class Asked(accelerate.PartialState):\n"
        "    def __init__(self, cpu=False, **how):\n"
        "        print(cpu)\n"
        "        super().__init__(cpu=cpu, **how)\n"
        "accelerate.PartialState = Asked\n"
        "torch.accelerator.is_available = lambda: True\n"
        "joining.start()"
    )
    for asked in ("true", "false"):
        monkeypatch.setenv("ACCELERATE_USE_CPU", asked)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stdout.strip() == str(asked == "true")


ALONE = """
import sys, time
from nlp_finetune import joining
here = joining.start(timeout_s=float(sys.argv[1]))
print("joined", flush=True)
print(here.on_main(lambda: time.sleep(float(sys.argv[2])) or "done"), flush=True)
"""


def pair(timeout_s: float, alone_s: float) -> list[subprocess.Popen[str]]:
    """Two connected processes, the first of which works alone for so long."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", ALONE, str(timeout_s), str(alone_s)],
            cwd=ROOT, env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip


@pytest.mark.slow
def test_others_wait_for_a_process_that_works_alone_longer_than_the_time_out() -> None:
    ended = [process.communicate(timeout=120) for process in pair(timeout_s=20, alone_s=26)]
    assert [out.split() for out, _ in ended] == [["joined", "done"]] * 2, ended


@pytest.mark.slow
def test_a_process_that_falls_silent_while_it_works_alone_is_given_up_within_the_time_out() -> None:
    main, other = pair(timeout_s=20, alone_s=300)
    try:
        assert main.stdout is not None
        assert main.stdout.readline() == "joined\n"
        time.sleep(2)
        main.send_signal(signal.SIGSTOP)  # as a machine whose packets vanish: nothing is closed, nothing is said
        _, said = other.communicate(timeout=90)
        assert other.returncode != 0
        assert "imed out" in said or "imeout" in said
    finally:
        main.kill()
        main.communicate()
