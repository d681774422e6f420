"""sources.json: what a run was made from, so exactly that others can get it: commits, hashes, licences."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlp_finetune.data import demo, paths
from nlp_finetune.models.about import about
from nlp_finetune.models.checkpoint import Checkpoint


def describe(
    checkpoint: Checkpoint, *, source: str | None, train: str, origins: Mapping[str, str], data_about: Mapping[str, Any]
) -> dict[str, Any]:
    """Base and data of a run: `origins` names where each split comes from, `data_about` is what its Hub says."""
    given = source if source is not None else train
    if given.startswith(demo.PREFIX):
        kind = "demo"
    else:
        kind = "file" if source is None or paths.looks_like_path(source) else "hub"
    data = {"kind": kind, "given": given, **data_about}
    files = {split: _sha256(Path(paths.expand(origin))) for split, origin in origins.items()} if kind == "file" else {}
    hashes = {split: digest for split, digest in files.items() if digest is not None}
    return {"base": about(checkpoint), "data": {**data, "files": hashes} if hashes else data}


def _sha256(file: Path) -> str | None:
    """Hash of a file; None for what is not one file."""
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
