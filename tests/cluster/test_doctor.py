"""The doctor: a report of the machine, and a meeting of processes that ends in a diagnosis."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nlp_finetune.cluster import machine, rendezvous
from tests import command_line

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def place(rank: int, processes: int, port: int, host: str = "127.0.0.1") -> dict[str, str]:
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
    }  # fmt: skip


def meet(environment: dict, timeout_s: float) -> dict:
    findings = rendezvous.self_test(environment, timeout_s=timeout_s, give_up=lambda finding: pytest.fail(str(finding)))
    return {finding.name: finding for finding in findings}


def test_the_report_of_a_machine_is_json_and_being_offline_is_no_failure(tmp_path: Path) -> None:
    done = command_line.run("doctor", "--json", "--output-dir", tmp_path, cwd=tmp_path)
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert report["state"] == "ok"
    assert {"versions", "devices", "cores", "memory", "disk of runs", "shared memory", "open files", "Hub"} <= set(
        found
    )
    assert "offline" in found["Hub"]["found"]  # the tests set HF_HUB_OFFLINE
    assert "torch 2" in found["versions"]["found"]


def test_a_hub_that_does_not_answer_is_a_warning_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{free_port()}")
    finding = machine._hub()
    assert (finding.state, "HF_HUB_OFFLINE=1" in finding.advice) == ("warning", True)


def test_a_folder_that_cannot_be_written_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    assert machine._disk("disk of runs", tmp_path / "runs").state == "failed"


def test_a_port_that_nobody_listens_on_is_named() -> None:
    start = time.monotonic()
    found = meet(place(1, 2, free_port()), timeout_s=1.5)
    assert time.monotonic() - start < 4
    assert "nothing listens on 127.0.0.1:" in found["rendezvous"].found


def test_a_name_that_nobody_knows_is_named() -> None:
    found = meet(place(1, 2, free_port(), host="no-such-host.invalid"), timeout_s=5)
    assert "no-such-host.invalid" in found["rendezvous"].found


def test_a_rank_that_does_not_come_is_named() -> None:
    found = meet(place(0, 3, free_port()), timeout_s=1.5)
    assert found["route to rank 0"].state == "ok"
    assert " on lo -> " in found["route to rank 0"].found
    assert "1 of 3 processes arrived; missing: rank 1, 2" in found["rendezvous"].found


def test_variables_that_are_not_set_are_named() -> None:
    assert "MASTER_ADDR, MASTER_PORT" in meet({"WORLD_SIZE": "2", "RANK": "0"}, timeout_s=5)["rendezvous"].found


@pytest.mark.slow
def test_under_a_launcher_the_processes_meet_and_measure_their_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port"]
    command += [str(free_port()), str(ROOT / "run.py"), "doctor", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    found = {finding["name"]: finding["found"] for finding in json.loads(done.stdout)["findings"]}
    assert found["rank map"] == f"2 processes on 1 machine: {socket.gethostname()}: 0, 1"
    assert "GB/s" in found["all-reduce"]
