"""Repositories on disk, as much of git and LFS as the Hub's API shows of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LFS_ENDINGS = (".safetensors", ".bin", ".parquet", ".onnx", ".gz")
LFS_FROM_BYTES = 10_000_000


@dataclass(frozen=True)
class File:
    """One file of a commit. `oid` is what git calls it: for an LFS file the hash of its pointer."""

    size: int
    sha256: str
    oid: str
    lfs: bool


@dataclass
class Commit:
    """A tree of files with its parent."""

    parent: str | None
    title: str
    author: str
    files: dict[str, File]


@dataclass
class Pull:
    """A pull request: `refs/pr/NUM` is its head."""

    title: str
    author: str
    status: str = "open"


@dataclass
class Repo:
    """A repository: commits by oid, full names of refs to oids, pull requests by number."""

    kind: str
    id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: dict[int, Pull] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        """Commit that a branch, tag, full ref or oid stands for."""
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        found = next((self.refs[name] for name in names if name in self.refs), None)
        return found or (revision if revision in self.commits else None)

    def files(self, revision: str) -> dict[str, File]:
        """Files at a revision that exists."""
        return self.commits[self.resolve(revision) or ""].files


class Store:
    """All repositories below one folder; contents by their SHA-256, each commit whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        self.clear()

    def clear(self) -> None:
        """Forget all repositories and contents."""
        self.repos: dict[tuple[str, str], Repo] = {}
        shutil.rmtree(self.root, ignore_errors=True)
        (self.root / "objects").mkdir(parents=True)

    def create(self, kind: str, repo_id: str, *, private: bool, author: str) -> Repo:
        """A new repository with the Hub's first commit in it."""
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, private)
        attributes = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LFS_ENDINGS)
        self.commit(
            repo,
            "refs/heads/main",
            {".gitattributes": self.add(attributes.encode())},
            title="initial commit",
            author=author,
        )
        return repo

    def object(self, sha256: str) -> Path:
        """Where the content with this hash is or will be."""
        return self.root / "objects" / sha256

    def add(self, content: bytes, *, lfs: bool = False) -> File:
        """Keep a content and describe it as a file."""
        sha256 = hashlib.sha256(content).hexdigest()
        partial = self.root / f"partial-{threading.get_ident()}"
        partial.write_bytes(content)
        os.replace(partial, self.object(sha256))
        return self.lfs_file(sha256) if lfs else File(len(content), sha256, _git_oid(content), lfs=False)

    def lfs_file(self, sha256: str) -> File:
        """An LFS file whose content has been uploaded before."""
        size = self.object(sha256).stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return File(size, sha256, _git_oid(pointer.encode()), lfs=True)

    def commit(
        self, repo: Repo, ref: str, changes: Mapping[str, File | None], *, title: str, author: str,
        base: str | None = None,
    ) -> str:  # fmt: skip
        """Add or delete (None) files on top of `base`, or of `ref` itself; give the new oid."""
        with self.lock:
            parent = base or repo.refs.get(ref)
            files = dict(repo.commits[parent].files) if parent else {}
            for path, file in changes.items():
                if file is None:
                    files.pop(path, None)
                else:
                    files[path] = file
            oid = hashlib.sha1(f"{repo.id}{parent}{title}{len(repo.commits)}{files}".encode()).hexdigest()
            repo.commits[oid] = Commit(parent, title, author, files)
            repo.refs[ref] = oid
            self.save(repo)
            return oid

    def save(self, repo: Repo) -> None:
        """Write the repository's state, which a look into the folder then shows."""
        file = self.root / f"{repo.kind}--{repo.id.replace('/', '--')}.json"
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(repo), indent=1), encoding="utf-8")
        os.replace(partial, file)

    def content(self, repo: Repo, path: str, revision: str = "main") -> bytes:
        """What a file of a repository holds."""
        return self.object(repo.files(revision)[path].sha256).read_bytes()


def is_lfs(path: str, size: int) -> bool:
    """Whether the Hub keeps such a file in LFS."""
    return path.endswith(LFS_ENDINGS) or size >= LFS_FROM_BYTES


def tree_entry(path: str, file: File) -> dict[str, Any]:
    """A file as the tree endpoint describes it."""
    entry = {"type": "file", "path": path, "size": file.size, "oid": file.oid}
    return entry | ({"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {})


def sibling(path: str, file: File) -> dict[str, Any]:
    """A file as the repository's information describes it."""
    entry: dict[str, Any] = {"rfilename": path, "size": file.size, "blobId": file.oid}
    return entry | ({"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {})


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
