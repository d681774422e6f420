"""What every call of the test server is made of: the request, its answer, and who may do what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.hub.store import Repo

if TYPE_CHECKING:
    from tests.hub.server import Hub, User


@dataclass(frozen=True)
class Request:
    """A request, its body read and its user known."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    user: User | None
    token: str | None

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


@dataclass(frozen=True)
class Answer:
    """Status, body and headers."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An answer that ends the request where it is raised."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer = as_json({"error": message}, status, headers)


def as_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    kind = {"Content-Type": "application/json"}
    return Answer(status, json.dumps(content).encode(), {**kind, **(headers or {})})


def known_user(request: Request) -> User:
    if request.user is None:
        raise Refusal(401, "Invalid credentials in Authorization header")
    return request.user


def allowed_repo(hub: Hub, request: Request, kind: str, repo_id: str, *, write: bool = False) -> Repo:
    """The repository, if this request may read (or write) it; a private one is said not to be there."""
    if request.token is not None:
        known_user(request)
    repo = hub.store.repos.get((kind or "models", repo_id))
    owns = request.user is not None and repo_id.split("/")[0] == request.user.name
    if repo is None or (repo.private and not owns):
        raise Refusal(404 if request.user else 401, "Repository not found", "RepoNotFound")
    if write and not (owns and request.user and request.user.may_write):
        raise Refusal(403, "You don't have the rights to write to this repository")
    return repo


def commit_of(repo: Repo, revision: str) -> str:
    oid = repo.resolve(revision)
    if oid is None:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return oid
