"""A Hub on the loopback interface, for tests: the real clients talk to it, and it can be made to fail.

    with Hub(folder) as hub:
        ...                                              a process with hub.environment(home, token)
        hub.fail("POST", "/commit/", "lost")             the next commit lands, its answer does not

Repositories are on disk (`store.py`); tokens are `hub.users`. Clients need HF_HUB_DISABLE_XET=1.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.hub.calls import Answer, Refusal, Request
from tests.hub.routes import route
from tests.hub.store import Repo, Store

Kind = int | str | Callable[[], None]
_KINDS = ("drop", "lost", "cut", "garble", "short", "reset", "flip")


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match.

    `kind` is a status to answer with; `drop` (the connection closes before anything is done), `lost`
    (it is done, the answer is not sent), `cut` (it closes in the middle of the request's body), `short`
    (in the middle of the answer's), `reset` (the same with RST in place of FIN), `garble` (one byte of the
    request's body is another), `flip` (of the answer's); or a function that is called before the request
    is served.
    """

    method: str
    path: re.Pattern[str]
    kind: Kind
    times: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class User:
    """Who a token belongs to and what it may do."""

    name: str
    may_write: bool = True


class Hub:
    """The server, its repositories, its users and its faults."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.token = f"hf_{secrets.token_hex(17)}"
        self.read_token = f"hf_{secrets.token_hex(17)}"
        self.users = {self.token: User("me"), self.read_token: User("me", may_write=False)}
        self.page_size = 1000
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # Another origin in the eyes of the clients: like the Hub's storage, it must not get their token.
        self.storage = f"http://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def fail(
        self, method: str, path: str, kind: Kind, *, times: int = 1, headers: dict[str, str] | None = None
    ) -> Fault:
        """Make the next requests whose path has a match of `path` fail; see `Fault`."""
        assert not isinstance(kind, str) or kind in _KINDS
        self.faults.append(Fault(method, re.compile(path), kind, times, headers or {}))
        return self.faults[-1]

    def forget(self) -> None:
        """Empty hub: no repositories, faults or requests."""
        self.faults.clear()
        self.requests.clear()
        self.store.clear()

    def repo(self, repo_id: str, kind: str = "models") -> Repo:
        """A repository that exists."""
        return self.store.repos[kind, repo_id]

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests so far whose path has a match of `path`."""
        return [r for r in self.requests if r.method == method and re.search(path, r.path)]

    def environment(self, home: Path, token: str | None) -> dict[str, str]:
        """Variables of a process that takes this server for the Hub."""
        found = {
            "HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "NO_PROXY": "127.0.0.1,localhost",
        }  # fmt: skip
        return found | ({"HF_TOKEN": token} if token else {})


class _Server(ThreadingHTTPServer):
    hub: Hub
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are what half of the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    # Headers and body are two writes: the second would wait 40 ms for the first to be acknowledged.
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None: ...

    def _serve(self) -> None:
        hub, address = self.server.hub, urlsplit(self.path)
        fault = _next_fault(hub, self.command, self.path)
        kind = fault.kind if fault is not None else None
        body = b"".join(self._body(cut=kind == "cut"))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        request = Request(
            self.command, address.path, dict(parse_qsl(address.query)), dict(self.headers),
            _flipped(body) if kind == "garble" else body,
            user=hub.users.get(token or ""), token=token,
        )  # fmt: skip
        hub.requests.append(request)
        if kind in ("cut", "drop"):
            self._hang_up()
        elif fault is not None and isinstance(kind, int):
            self._send(Answer(kind, json.dumps({"error": "injected"}).encode(), fault.headers))
        else:
            if callable(kind):
                kind()
            self._send(_answer(hub, request), how=kind)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _body(self, *, cut: bool) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().strip() or b"0", 16):
                yield self.rfile.read(size)
                self.rfile.readline()
                if cut:
                    return
            self.rfile.readline()
        else:
            size = int(self.headers.get("Content-Length", 0))
            yield self.rfile.read(size // 2 if cut else size)

    def _send(self, answer: Answer, *, how: Kind | None = None) -> None:
        if how == "lost":
            return self._hang_up()
        content = _flipped(answer.body) if how == "flip" else answer.body
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(content)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if how in ("short", "reset") else content)
        if how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        if how == "short":
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _next_fault(hub: Hub, method: str, path: str) -> Fault | None:
    with hub.store.lock:
        for fault in hub.faults:
            if fault.times > 0 and fault.method == method and fault.path.search(path):
                fault.times -= 1
                return fault
    return None


def _answer(hub: Hub, request: Request) -> Answer:
    try:
        with hub.store.lock:
            return route(hub, request)
    except Refusal as refusal:
        return refusal.answer
