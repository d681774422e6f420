"""What pushing and pulling share: patience, errors in words, and hashes compared with the Hub's."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nlp_finetune.errors import InputError, NlpFinetuneError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile, RepoFolder

T = TypeVar("T")

WAITS_S = (1.0, 2.0, 4.0)
"""Pauses between tries; a Hub that names a longer one (Retry-After) gets it, up to `LONGEST_WAIT_S`."""
LONGEST_WAIT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 300.0
"""How long a Hub may say nothing: it answers a commit of many files after minutes."""
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_PASSING = {408, 409, 412, 425, 429}
"""Refusals that another try may not meet: busy, outdated, too many."""


def is_repo_id(text: str) -> bool:
    """Whether a text has the form OWNER/NAME of a repository on the Hub."""
    is_one = _REPO_ID.fullmatch(text) and "--" not in text and ".." not in text
    return bool(is_one) and not text.endswith((".git", ".", "-"))


def patiently(call: Callable[[], T], repo_id: str, *, waits_s: tuple[float, ...] = WAITS_S) -> T:
    """Result of a call to the Hub, tried again where an error may pass.

    Raises `InputError` for what the Hub refuses (and for offline mode), `NlpFinetuneError` where it
    can't be reached or fails every time.
    """
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as installed

    for wait_s in (*waits_s, None):
        try:
            with _bounded():
                return call()
        except (OSError, RuntimeError, ValueError, httpx.HTTPError) as error:
            refusal = refused(error, repo_id)
            if refusal is not None:
                raise refusal from error
            if wait_s is None:
                raise NlpFinetuneError(
                    f"{repo_id}: the Hub ({endpoint()}) can't be reached or fails, tried "
                    f"{len(waits_s) + 1} times: {in_short(error)}."
                ) from error
            time.sleep(max(wait_s, min(_asked_wait_s(error), LONGEST_WAIT_S)))
    raise AssertionError("the last try returns or raises")


def endpoint() -> str:
    """Address of the Hub."""
    from huggingface_hub import constants

    return constants.ENDPOINT


@contextmanager
def _bounded() -> Iterator[None]:
    """Limit how long the client, which waits forever by itself, waits for a Hub that says nothing."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    client = get_session()
    before = client.timeout
    client.timeout = httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    try:
        yield
    finally:
        client.timeout = before


def _asked_wait_s(error: BaseException) -> float:
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0


def status_of(error: BaseException) -> int | None:
    """HTTP status of an error; None where no answer came."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return int(status) if status is not None else None


def refused(error: BaseException, repo_id: str) -> InputError | None:
    """What is wrong in the user's words; None for an error that may pass."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return InputError(f"{repo_id}: HF_HUB_OFFLINE is set, so the Hub is not asked. Unset it.")
    if isinstance(error, errors.HFValidationError):
        return InputError(f"{repo_id}: not the id of a repository. Write OWNER/NAME.")
    if isinstance(error, FileNotFoundError | PermissionError) and error.filename:
        return InputError(f"{error.filename}: {error.strerror}.")
    status = status_of(error)
    if status is None:
        return None
    if status in _PASSING or status >= 500:
        return None
    said = _said(error)
    if isinstance(error, errors.GatedRepoError):
        return InputError(f"{repo_id}: gated. Ask for access on {endpoint()}/{repo_id}.")
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{repo_id}: the repository is there, this revision of it is not.")
    return InputError(
        {
            401: f"{repo_id}: the Hub does not accept the token, or wants one. Run `hf auth login` again or "
            "set HF_TOKEN to a valid token (HF_TOKEN goes before the login).",
            402: f"{repo_id}: the Hub wants a payment first{said}.",
            403: f"{repo_id}: this token may not do that{said}. It needs write access to this "
            f"repository: see {endpoint()}/settings/tokens",
            404: f"{repo_id}: not on the Hub, or not for this token{said}. Is the id right?",
        }.get(status, f"{repo_id}: the Hub refuses it (HTTP {status}){said}.")
    )


def _said(error: BaseException) -> str:
    message = getattr(error, "server_message", None)
    return f" ({message.strip().splitlines()[0].rstrip('.')})" if message and message.strip() else ""


def in_short(error: BaseException) -> str:
    """One line about an error, with the cause that the client wraps."""
    inner = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    status = status_of(inner)
    if status is not None:
        return f"HTTP {status}{_said(inner)}"
    if isinstance(inner, json.JSONDecodeError):
        return "its answer is no JSON"
    return (str(inner).strip().splitlines() or [type(inner).__name__])[0]


def differing(folder: Path, names: Iterable[str], tree: Iterable[RepoFile | RepoFolder]) -> list[str]:
    """Names of files that are not, byte for byte, those of the tree under the same names."""
    there: dict[str, Any] = {entry.path: entry for entry in tree}
    return [name for name in names if not _same(folder / name, there.get(name))]


def _same(file: Path, remote: Any) -> bool:
    oid = getattr(remote, "blob_id", None)
    size = file.stat().st_size
    if oid is None or size != remote.size:
        return False
    if remote.lfs is not None:
        return bool(_sha256(str(file), size, file.stat().st_mtime_ns) == remote.lfs.sha256)
    content = file.read_bytes()
    return bool(hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == oid)


@lru_cache(maxsize=256)
def _sha256(file: str, size: int, modified_ns: int) -> str:
    """Hash of a file, worked out once while it stays the same."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
