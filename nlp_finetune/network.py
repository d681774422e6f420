"""The network between processes: which interface leads to rank 0, and whether an error means a lost process."""

from __future__ import annotations

import os
import re
import socket

from nlp_finetune.errors import InputError

_LOST = re.compile(
    r"connection (closed|reset|was likely closed)|timed out|time-?out|broken pipe|unreachable|socket|nccl|gloo", re.I
)


def route(host: str, port: int) -> tuple[str, str | None]:
    """This machine's own address towards a host, and the interface that has it; nothing is sent.

    Raises `OSError` for a name that is not known and for a network that cannot be reached.
    """
    import psutil

    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        own = str(probe.getsockname()[0])
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == own for one in addresses):
            return own, name
    return own, None


def choose_interface() -> None:
    """Name the interface that leads to rank 0, for gloo: the name of this machine may lead to 127.0.1.1."""
    several_machines = os.environ.get("WORLD_SIZE", "1") != os.environ.get("LOCAL_WORLD_SIZE", "1")
    if not several_machines or "GLOO_SOCKET_IFNAME" in os.environ or "MASTER_ADDR" not in os.environ:
        return
    try:
        _, interface = route(os.environ["MASTER_ADDR"], int(os.environ.get("MASTER_PORT", "29500")))
    except OSError as error:
        raise InputError(
            f"MASTER_ADDR {os.environ['MASTER_ADDR']} cannot be reached from here ({error.strerror}). "
            "`doctor` under the same launcher says why."
        ) from error
    if interface is not None and interface != "lo":
        os.environ["GLOO_SOCKET_IFNAME"] = interface


def lost_contact(error: BaseException) -> str | None:
    """What an error says about another process that is gone; None where that is not what happened."""
    from torch.distributed import DistError

    is_network = isinstance(error, DistError) or (type(error) is RuntimeError and _LOST.search(str(error)))
    return first_line(error) if is_network else None


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without the place in a library's sources."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[\S+:\d+\] ", "", line)[:200]
