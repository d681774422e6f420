"""Which call of the Hub's API is answered by which function."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tests.hub import reading, writing
from tests.hub.calls import Answer, Refusal, Request

if TYPE_CHECKING:
    from tests.hub.server import Hub


def route(hub: Hub, request: Request) -> Answer:
    """The answer to a request; raises `Refusal`."""
    for method, pattern, function in _ROUTES:
        match = pattern.fullmatch(request.path)
        if match and request.method in method.split():
            return function(hub, request, *[unquote(group or "") for group in match.groups()])
    raise Refusal(404, f"no such endpoint: {request.method} {request.path}")


_API = r"/api/(models|datasets)/([\w.-]+/[\w.-]+)"
_GIT = r"/(datasets/)?([\w.-]+/[\w.-]+)\.git/info/lfs"
_ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = [
    (method, re.compile(pattern), function)
    for method, pattern, function in (
        ("GET", r"/api/whoami-v2", reading.who),
        ("POST", r"/api/repos/create", writing.create),
        ("POST", r"/api/validate-yaml", writing.validate),
        ("GET", _API + r"/auth-check(/write)?", reading.auth_check),
        ("GET", _API + r"(?:/revision/([^/]+))?", reading.info),
        ("GET", _API + r"/tree/([^/]+)(?:/(.+))?", reading.tree),
        ("GET", _API + r"/refs", reading.refs),
        ("GET", _API + r"/discussions", reading.discussions),
        ("POST", _API + r"/preupload/([^/]+)", writing.preupload),
        ("POST", _API + r"/commit/([^/]+)", writing.commit),
        ("POST", _API + r"/branch/([^/]+)", writing.branch),
        ("POST", _API + r"/tag/([^/]+)", writing.tag),
        ("POST", _GIT + r"/objects/batch", writing.lfs_batch),
        ("POST", _GIT + r"/verify", writing.lfs_verify),
        ("PUT", r"/_objects/([0-9a-f]{64})", writing.upload),
        ("GET HEAD", r"/_objects/([0-9a-f]{64})", reading.object),
        ("GET HEAD", r"/(?:(datasets)/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", reading.resolve),
    )
]
