"""Do the processes of a launcher find each other? A self-test that ends in a diagnosis, never in a hang.

Step by step, each with what is left of the time: the launcher's variables, the address of rank 0, its
port, who arrived, and an all-reduce whose result and bandwidth are looked at.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nlp_finetune.cluster.finding import Finding
from nlp_finetune.network import first_line, route

if TYPE_CHECKING:
    import torch

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PAYLOAD_BYTES = 16 * 2**20
_ROUNDS = 4
_GRACE_S = 5.0


class _Diagnosis(Exception):
    """Why the processes cannot work together."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.finding = Finding("rendezvous", "failed", found, advice)


@dataclass(frozen=True)
class _Launch:
    rank: int
    processes: int
    local_rank: int
    host: str
    port: int
    agent_holds_store: bool
    """torchrun's agent, and not rank 0, listens on the port."""


def announced(environment: Mapping[str, str]) -> bool:
    """Whether a launcher announced several processes."""
    return int(environment.get("WORLD_SIZE", "1")) > 1


def self_test(environment: Mapping[str, str], *, timeout_s: float, give_up: Callable[[Finding], None]) -> list[Finding]:
    """Findings about the meeting of all processes; every process of the launcher must call it.

    Ends within `timeout_s` seconds, or a few more: where a library does not keep to its time-out,
    `give_up` is called from another thread and has to end the process.
    """
    end = time.monotonic() + timeout_s
    stuck = Finding(
        "rendezvous", "failed", f"a library did not come back in {timeout_s:.0f} s",
        "set NCCL_DEBUG=INFO and look at each rank's last lines; try NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME",
    )  # fmt: skip
    watch = threading.Timer(timeout_s + _GRACE_S, give_up, [stuck])
    watch.daemon = True
    watch.start()
    findings: list[Finding] = []
    try:
        launch = _read(environment)
        findings.append(_route(launch))
        store = _meet(launch, end)
        findings.append(_rank_map(launch, store, end))
        findings.append(_all_reduce(launch, store, end))
    except _Diagnosis as problem:
        findings.append(problem.finding)
    finally:
        watch.cancel()
    return findings


def _read(environment: Mapping[str, str]) -> _Launch:
    missing = [name for name in _NEEDED if name not in environment]
    if missing:
        raise _Diagnosis(
            f"WORLD_SIZE is {environment.get('WORLD_SIZE')}, but {', '.join(missing)} is not set",
            "start with torchrun or accelerate launch, or set them in the job script",
        )
    return _Launch(
        rank=int(environment["RANK"]),
        processes=int(environment["WORLD_SIZE"]),
        local_rank=int(environment.get("LOCAL_RANK", "0")),
        host=environment["MASTER_ADDR"],
        port=int(environment["MASTER_PORT"]),
        agent_holds_store=environment.get("TORCHELASTIC_USE_AGENT_STORE", "") == "True",
    )


def _route(launch: _Launch) -> Finding:
    """Which address and interface of this machine lead to rank 0."""
    try:
        own, interface = route(launch.host, launch.port)
    except socket.gaierror as error:
        raise _Diagnosis(
            f"MASTER_ADDR {launch.host} is no name that this machine ({socket.gethostname()}) knows",
            "use an address that all machines can reach (scontrol show hostnames; getent hosts NAME)",
        ) from error
    except OSError as error:
        raise _Diagnosis(
            f"no route from {socket.gethostname()} to {launch.host} ({error.strerror})",
            "the machines are not in one network, or MASTER_ADDR is another network's address",
        ) from error
    several_machines = launch.processes > int(os.environ.get("LOCAL_WORLD_SIZE", launch.processes))
    if interface is not None and interface != "lo" and several_machines:
        # As training does: gloo would take the interface that this machine's name leads to.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    asked = os.environ.get("NCCL_SOCKET_IFNAME") or os.environ.get("GLOO_SOCKET_IFNAME")
    note = f"; {asked} was asked for" if asked and asked != interface else ""
    return Finding(
        "route to rank 0", "ok", f"{own} on {interface or 'an unknown interface'} -> {launch.host}:{launch.port}{note}"
    )


def _meet(launch: _Launch, end: float) -> Any:
    """The store that rank 0 (or torchrun's agent) opens; raises with what the port says."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    opens = launch.rank == 0 and not launch.agent_holds_store
    if not opens:
        _wait_for_port(launch, end)
    try:
        return TCPStore(
            launch.host, launch.port, launch.processes, opens, timedelta(seconds=max(1.0, end - time.monotonic())),
            wait_for_workers=False,
        )  # fmt: skip
    except RuntimeError as error:
        raise _Diagnosis(
            f"port {launch.port} of {launch.host}: {first_line(error)}",
            "another program may hold the port: set another MASTER_PORT / --main_process_port on all machines",
        ) from error


def _wait_for_port(launch: _Launch, end: float) -> None:
    last: OSError = TimeoutError()
    while time.monotonic() < end:
        try:
            socket.create_connection(
                (launch.host, launch.port), timeout=max(0.5, min(5.0, end - time.monotonic()))
            ).close()
            return
        except OSError as error:
            last = error
            time.sleep(0.5)
    where = f"{launch.host}:{launch.port}"
    if isinstance(last, ConnectionRefusedError):
        raise _Diagnosis(
            f"nothing listens on {where}", "was rank 0 started, with this port? Did it end? See its log"
        ) from last
    raise _Diagnosis(
        f"{where} does not answer ({last.strerror or 'time-out'})",
        "a firewall between the machines, or the address of another network: open the port, or set MASTER_ADDR",
    ) from last


def _rank_map(launch: _Launch, store: Any, end: float) -> Finding:
    """Every rank says where it is, and waits for the others; raises with those that did not come."""
    own = f"{socket.gethostname()}:{launch.local_rank}"
    store.set(f"doctor/{launch.rank}", own)
    names = [f"doctor/{rank}" for rank in range(launch.processes)]
    while not store.check(names):
        if time.monotonic() > end:
            absent = [str(rank) for rank, name in enumerate(names) if not store.check([name])]
            raise _Diagnosis(
                f"{launch.processes - len(absent)} of {launch.processes} processes arrived; missing: rank "
                + ", ".join(absent[:16]),
                "look into the logs of these ranks: not started, ended early, or with another WORLD_SIZE or RANK",
            )
        time.sleep(0.05)
    places: dict[str, list[str]] = {}
    for rank, name in enumerate(names):
        host = store.get(name).decode().rpartition(":")[0]
        places.setdefault(host, []).append(str(rank))
    shown = "; ".join(f"{host}: {', '.join(ranks)}" for host, ranks in list(places.items())[:16])
    count = f"{len(places)} machines" if len(places) > 1 else "1 machine"
    more = f"; and {len(places) - 16} more machines" if len(places) > 16 else ""
    return Finding("rank map", "ok", f"{launch.processes} processes on {count}: {shown}{more}")


def _all_reduce(launch: _Launch, store: Any, end: float) -> Finding:
    """Sums a tensor over all processes a few times: is the sum right, and how fast?"""
    import torch
    import torch.distributed as dist

    device = _device(launch)
    backend = "nccl" if device.type == "cuda" else "gloo"
    left = timedelta(seconds=max(1.0, end - time.monotonic()))
    try:
        apart = dist.PrefixStore("doctor", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=apart, rank=launch.rank, world_size=launch.processes, timeout=left)
        values = torch.ones(_PAYLOAD_BYTES // 4, device=device)
        dist.all_reduce(values)
        correct = bool((values == launch.processes).all())
        start = time.perf_counter()
        for _ in range(_ROUNDS):
            dist.all_reduce(values)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = (time.perf_counter() - start) / _ROUNDS
        dist.barrier()
        dist.destroy_process_group()
    except RuntimeError as error:
        raise _Diagnosis(
            f"all-reduce over {backend}: {first_line(error)}",
            "the store is reached, the other ranks are not: name the interface with "
            f"{'NCCL' if backend == 'nccl' else 'GLOO'}_SOCKET_IFNAME, and open high ports between the machines",
        ) from error
    if not correct:
        raise _Diagnosis(
            "the all-reduce gave a wrong sum", "a broken GPU, link or driver: take machines out one by one"
        )
    # A ring sends and receives 2 (N - 1) / N times the tensor.
    sent = 2 * (launch.processes - 1) / launch.processes * _PAYLOAD_BYTES
    rate = sent / seconds / 1e9
    found = (
        f"{backend}, {_PAYLOAD_BYTES // 2**20} MiB in {seconds * 1e3:.1f} ms: {rate:.2f} GB/s on each process's link"
    )
    return Finding("all-reduce", "ok", found)


def _device(launch: _Launch) -> torch.device:
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", launch.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def as_json(findings: list[Finding]) -> str:
    """The report as one JSON document."""
    state = "failed" if any(f.state == "failed" for f in findings) else "ok"
    return json.dumps({"state": state, "findings": [vars(finding) for finding in findings]}, indent=2)
