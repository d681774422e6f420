"""Calls of the Hub's API that only read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from tests.hub.calls import Answer, Refusal, Request, allowed_repo, as_json, commit_of, known_user
from tests.hub.store import Repo, sibling, tree_entry

if TYPE_CHECKING:
    from tests.hub.server import Hub


def who(hub: Hub, request: Request) -> Answer:
    user = known_user(request)
    return as_json({"type": "user", "name": user.name, "orgs": [], "auth": {"type": "access_token"}})


def auth_check(hub: Hub, request: Request, kind: str, repo_id: str, write: str) -> Answer:
    allowed_repo(hub, request, kind, repo_id, write=bool(write))
    return as_json({})


def info(hub: Hub, request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    repo = allowed_repo(hub, request, kind, repo_id)
    oid = commit_of(repo, revision or "main")
    files = [sibling(path, file) for path, file in repo.commits[oid].files.items()]
    found = {"id": repo_id, "sha": oid, "private": repo.private, "siblings": files, "tags": []}
    return as_json(found | ({"cardData": fields} if (fields := _card_fields(hub, repo, oid)) else {}))


def _card_fields(hub: Hub, repo: Repo, oid: str) -> Any:
    """Header of a repository's card, which the Hub reads and tells with the rest."""
    if "README.md" not in repo.commits[oid].files:
        return None
    text = hub.store.content(repo, "README.md", oid).decode(errors="replace")
    header = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", text, re.DOTALL)
    try:
        return yaml.safe_load(header[1]) if header else None
    except yaml.YAMLError:
        return None


def tree(hub: Hub, request: Request, kind: str, repo_id: str, revision: str, folder: str) -> Answer:
    repo = allowed_repo(hub, request, kind, repo_id)
    below = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in sorted(repo.commits[commit_of(repo, revision)].files.items()):
        inside, slash, _ = path.removeprefix(below).partition("/")
        if path.startswith(below) and (not slash or request.query.get("recursive", "").lower() == "true"):
            entries[path] = tree_entry(path, file)
        elif path.startswith(below):
            entries[below + inside] = {
                "type": "directory",
                "path": below + inside,
                "oid": "0" * 40,
                "size": 0,
            }
    start = int(request.query.get("cursor", 0))
    end = start + hub.page_size
    more = f'<{hub.url}{request.path}?recursive=true&cursor={end}>; rel="next"'
    return as_json(list(entries.values())[start:end], headers={"Link": more} if end < len(entries) else {})


def refs(hub: Hub, request: Request, kind: str, repo_id: str) -> Answer:
    repo = allowed_repo(hub, request, kind, repo_id)

    def below(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid}
            for ref, oid in repo.refs.items()
            if ref.startswith(prefix)
        ]

    found = {"branches": below("refs/heads/"), "tags": below("refs/tags/"), "converts": []}
    return as_json(found | ({"pullRequests": below("refs/pr/")} if "include_prs" in request.query else {}))


def discussions(hub: Hub, request: Request, kind: str, repo_id: str) -> Answer:
    repo = allowed_repo(hub, request, kind, repo_id)
    found = [
        {
            "num": num, "title": pull.title, "author": {"name": pull.author}, "status": pull.status,
            "createdAt": "2030-01-01T00:00:00.000Z", "isPullRequest": True,
            "repo": {"name": repo_id, "type": "model"},
        }
        for num, pull in repo.pulls.items()
        if request.query.get("author") in (None, pull.author)
        and request.query.get("status") in (None, "all", pull.status)
    ]  # fmt: skip
    return as_json({"count": len(found), "start": 0, "discussions": found})


def resolve(hub: Hub, request: Request, kind: str, repo_id: str, revision: str, path: str) -> Answer:
    repo = allowed_repo(hub, request, kind, repo_id)
    oid = commit_of(repo, revision)
    file = repo.commits[oid].files.get(path)
    if file is None:
        raise Refusal(404, "Entry not found", "EntryNotFound")
    headers = {"X-Repo-Commit": oid, "ETag": f'"{file.oid}"', "Accept-Ranges": "bytes"}
    if not file.lfs:
        return _part(hub, request, file.sha256, headers)
    linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    return Answer(302, b"", {**headers, **linked, "Location": f"{hub.storage}/_objects/{file.sha256}"})


def object(hub: Hub, request: Request, sha256: str) -> Answer:
    if not hub.store.object(sha256).is_file():
        raise Refusal(404, "no such object")
    return _part(hub, request, sha256, {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})


def _part(hub: Hub, request: Request, sha256: str, headers: dict[str, str]) -> Answer:
    content = hub.store.object(sha256).read_bytes()
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if asked is None:
        return Answer(200, content, headers)
    first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
    shown = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
    return Answer(206, content[first : last + 1], headers | shown)
