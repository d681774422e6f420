"""Calls of the Hub's API that write."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from tests.hub.calls import Answer, Refusal, Request, allowed_repo, as_json, commit_of, known_user
from tests.hub.store import File, Pull, is_lfs

if TYPE_CHECKING:
    from tests.hub.server import Hub


def create(hub: Hub, request: Request) -> Answer:
    user, asked = known_user(request), request.json()
    owner = asked.get("organization") or user.name
    repo_id, kind = f"{owner}/{asked['name']}", f"{asked.get('type') or 'model'}s"
    if owner != user.name or not user.may_write:
        raise Refusal(403, f"You don't have the rights to create a model under the namespace {owner}")
    url = {"url": f"{hub.url}/{'' if kind == 'models' else kind + '/'}{repo_id}"}
    if (kind, repo_id) in hub.store.repos:
        return as_json({"error": "You already created this model repo", **url}, 409)
    hub.store.create(kind, repo_id, private=asked.get("visibility") == "private", author=user.name)
    return as_json(url)


def validate(hub: Hub, request: Request) -> Answer:
    text = request.json()["content"]
    header = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", text, re.DOTALL)
    if header is None:
        return as_json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        problems = list(_card_problems(yaml.safe_load(header[1])))
    except yaml.YAMLError as error:
        problems = [str(error)]
    found = {"errors": [{"message": problem} for problem in problems], "warnings": []}
    return as_json(found, 400 if problems else 200)


def _card_problems(data: Any) -> list[str]:
    if not isinstance(data, dict):
        return ["the metadata are no mapping"]
    needed = {"task": ("type",), "dataset": ("type", "name")}
    texts = [key for key in ("license", "library_name") if key in data]
    problems = [f'"{key}" must be a string' for key in texts if not isinstance(data[key], str)]
    for model in data.get("model-index", []):
        if "name" not in model or not isinstance(model.get("results"), list):
            problems.append('"model-index[0]" must have name and results')
            continue
        for result in model["results"]:
            problems += [
                f'"model-index[0].results.{part}.{key}" is required'
                for part, keys in needed.items()
                for key in keys
                if not result.get(part, {}).get(key)
            ]
            if not all({"type", "value"} <= metric.keys() for metric in result.get("metrics", [{}])):
                problems.append('"metrics.type" and "metrics.value" are required')
    return problems


def preupload(hub: Hub, request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    repo = allowed_repo(hub, request, kind, repo_id, write="create_pr" not in request.query)
    there = repo.commits[commit_of(repo, revision)].files

    def mode(asked: dict[str, Any]) -> dict[str, Any]:
        old, lfs = there.get(asked["path"]), is_lfs(asked["path"], asked["size"])
        oid = None if old is None else old.sha256 if old.lfs else old.oid
        return {
            "path": asked["path"],
            "uploadMode": "lfs" if lfs else "regular",
            "shouldIgnore": False,
            "oid": oid,
        }

    return as_json({"files": [mode(asked) for asked in request.json()["files"]]})


def lfs_batch(hub: Hub, request: Request, prefix: str, repo_id: str) -> Answer:
    allowed_repo(hub, request, prefix.rstrip("/"), repo_id)
    verify = {"href": f"{hub.url}/{prefix}{repo_id}.git/info/lfs/verify"}
    objects = []
    for asked in request.json()["objects"]:
        upload = {"href": f"{hub.storage}/_objects/{asked['oid']}?signature=1"}
        missing = not hub.store.object(asked["oid"]).is_file()
        objects.append(asked | ({"actions": {"upload": upload, "verify": verify}} if missing else {}))
    return as_json({"transfer": "basic", "objects": objects})


def upload(hub: Hub, request: Request, sha256: str) -> Answer:
    if hub.store.add(request.body).sha256 == sha256:
        return Answer()
    raise Refusal(400, "the content does not have the hash it was announced with")


def lfs_verify(hub: Hub, request: Request, prefix: str, repo_id: str) -> Answer:
    asked = request.json()
    file = hub.store.object(asked["oid"])
    if not file.is_file() or file.stat().st_size != asked["size"]:
        raise Refusal(404, "object not found")
    return as_json({})


def commit(hub: Hub, request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    proposes = "create_pr" in request.query
    repo = allowed_repo(hub, request, kind, repo_id, write=not proposes)
    base = commit_of(repo, revision)
    header, changes = _changes(hub, repo.commits[base].files, request.body)
    if header.get("parentCommit") not in (None, base):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    author, title, url = known_user(request).name, header["summary"], f"{hub.url}/{repo_id}"
    num = max(repo.pulls, default=0) + 1
    ref = f"refs/pr/{num}" if proposes else revision if revision in repo.refs else f"refs/heads/{revision}"
    if proposes:
        repo.pulls[num] = Pull(title, author)
    oid = hub.store.commit(repo, ref, changes, title=title, author=author, base=base)
    answer = {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}", "hookOutput": ""}
    return as_json(answer | ({"pullRequestUrl": f"{url}/discussions/{num}"} if proposes else {}))


def _changes(hub: Hub, there: Mapping[str, File], body: bytes) -> tuple[Any, dict[str, File | None]]:
    """Header and changes of a commit in NDJSON."""
    header, changes = {}, dict[str, File | None]()
    for line in body.splitlines():
        item = json.loads(line)
        key, value = item["key"], item["value"]
        if key == "header":
            header = value
        elif key == "file":
            changes[value["path"]] = hub.store.add(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if not hub.store.object(value["oid"]).is_file():
                raise Refusal(400, f"LFS pointer to a file that does not exist: {value['path']}")
            changes[value["path"]] = hub.store.lfs_file(value["oid"])
        elif key == "deletedFile":
            if value["path"] not in there:
                raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            changes[value["path"]] = None
        else:
            raise Refusal(400, f"no such operation: {key}")
    return header, changes


def _new_ref(hub: Hub, request: Request, kind: str, repo_id: str, ref: str, start: str) -> Answer:
    repo = allowed_repo(hub, request, kind, repo_id, write=True)
    if ref in repo.refs:
        raise Refusal(409, f"Reference {ref} exists already")
    repo.refs[ref] = commit_of(repo, start)
    hub.store.save(repo)
    return as_json({})


def branch(hub: Hub, request: Request, kind: str, repo_id: str, name: str) -> Answer:
    start = request.json().get("startingPoint", "main")
    return _new_ref(hub, request, kind, repo_id, f"refs/heads/{name}", start)


def tag(hub: Hub, request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    return _new_ref(hub, request, kind, repo_id, f"refs/tags/{request.json()['tag']}", revision)
