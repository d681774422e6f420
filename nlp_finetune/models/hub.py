"""A Hub checkpoint as a local folder: looked up once, downloaded once, every failure said plainly.

The Hub's client retries an unreachable Hub for half a minute per file and hides which of five things
went wrong. Here one short look-up decides first whether the Hub, the cache or neither serves.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models import resnet_files
from nlp_finetune.models.checkpoint import Checkpoint, similar_paths
from nlp_finetune.models.quiet import quiet

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

LOOK_UP_TIMEOUT_S = 5.0
DOWNLOAD_TRIES = 3
_SMALL_FILES = (".json", ".txt", ".model", ".jinja", ".spm", ".tiktoken")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def local_folder(checkpoint: Checkpoint, *, weights: bool, say: Callable[[str], None] | None = None) -> Path:
    """Folder on this machine that holds the checkpoint's files, in transformers' format.

    A Hub checkpoint is fetched first, a ResNet of torchvision or timm converted. Raises `InputError` as
    `snapshot` and `resnet_files` do.
    """
    if checkpoint.kind == "torchvision":
        return resnet_files.from_torchvision(checkpoint, weights=weights)
    if checkpoint.kind == "file":
        return resnet_files.from_file(checkpoint, weights=weights)
    if checkpoint.kind == "hub":
        code = checkpoint.trust_remote_code
        found = snapshot(checkpoint.location, revision=checkpoint.revision, weights=weights, code=code, say=say)
    else:
        found = Path(checkpoint.location)
    return resnet_files.readable(found)


def commit_of(checkpoint: Checkpoint) -> str:
    """Commit of a Hub checkpoint; raises `InputError` as `snapshot` does."""
    return snapshot(checkpoint.location, revision=checkpoint.revision, weights=False).name


def snapshot(
    repo_id: str,
    *,
    revision: str | None,
    weights: bool,
    code: bool = False,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Local folder with a Hub model's configuration and tokenizer, and its weights and code if asked for.

    The folder's name is the commit. Weights are safetensors where the repository has them, and are
    compared with the hash the Hub gives when they arrive. Without a connection the copy of an
    earlier download serves.

    Raises `InputError` for a repository or revision that is not there or not allowed, and for a Hub
    that can't be reached (within `LOOK_UP_TIMEOUT_S`) while the cache has no copy.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    if constants.is_offline_mode():
        return _cached(repo_id, revision, weights, why="HF_HUB_OFFLINE is set")
    try:
        info = _look_up(constants.ENDPOINT, repo_id, revision)
    except (httpx.TransportError, HfHubHTTPError, OSError) as error:
        refusal = _refusal(error, repo_id, revision)
        if refusal is not None:
            raise refusal from error
        reason = _in_short(error)
        folder = _cached(repo_id, revision, weights, why=f"the Hub can't be reached ({reason})", cause=error)
        if say is not None and weights:
            say(f"{repo_id}: the Hub can't be reached ({reason}); the cached copy serves, {folder.name[:12]}")
        return folder
    return _download(repo_id, revision, info, weights=weights, code=code, say=say)


@lru_cache(maxsize=32)
def _look_up(endpoint: str, repo_id: str, revision: str | None) -> ModelInfo:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint).model_info(
        repo_id, revision=revision, timeout=LOOK_UP_TIMEOUT_S, files_metadata=True
    )


def card_fields(repo_id: str, revision: str | None) -> dict[str, Any]:
    """Fields of the header of a model's card, as the Hub tells them; none where it can't be asked."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    if constants.is_offline_mode():
        return {}
    try:
        card = _look_up(constants.ENDPOINT, repo_id, revision).card_data
    except (httpx.TransportError, HfHubHTTPError, OSError):
        return {}
    return {name: getattr(card, name, None) for name in ("license", "language")}


def _download(
    repo_id: str,
    revision: str | None,
    info: ModelInfo,
    *,
    weights: bool,
    code: bool,
    say: Callable[[str], None] | None,
) -> Path:
    """Fetch what is not in the cache yet, three times if the connection breaks."""
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    files = {file.rfilename: file for file in info.siblings or []}
    names = [
        name for name in files if "/" not in name and name.endswith((*_SMALL_FILES, ".py") if code else _SMALL_FILES)
    ]
    heavy = _weight_files(list(files), repo_id) if weights else []
    new = [n for n in heavy if not isinstance(try_to_load_from_cache(repo_id, n, revision=info.sha), str)]
    if new and say is not None:
        size = sum(files[name].size or 0 for name in new)
        say(f"{repo_id}: downloading {', '.join(new)} ({size / 1e6:,.0f} MB) from the Hub, commit {info.sha}")
    for attempt in range(1, DOWNLOAD_TRIES + 1):
        try:
            with nullcontext() if new else quiet():
                folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=names + heavy))
            break
        except (httpx.TransportError, HfHubHTTPError, OSError) as error:
            refusal = _refusal(error, repo_id, revision)
            if refusal is None and attempt < DOWNLOAD_TRIES:
                time.sleep(2.0**attempt)
                continue
            raise refusal or InputError(
                f"{repo_id}: the download broke {DOWNLOAD_TRIES} times ({_in_short(error)}). "
                "What has arrived is kept: the same command goes on."
            ) from error
    for name in new:
        _verify(folder / name, files[name].lfs, repo_id)
    return folder


def _weight_files(names: list[str], repo_id: str) -> list[str]:
    """Files of the weights at the root of a repository: safetensors first, whole or in shards."""
    for whole in _WEIGHTS:
        stem, _, ending = whole.partition(".")
        if whole in names:
            return [whole]
        if f"{whole}.index.json" in names:
            return sorted(n for n in names if n.startswith(f"{stem}-") and n.endswith(f".{ending}"))
    raise InputError(f"{repo_id}: the repository holds no weights that PyTorch loads ({' or '.join(_WEIGHTS)}).")


def _verify(file: Path, lfs: Any, repo_id: str) -> None:
    # The client compares sizes only: a flipped byte would go unnoticed.
    expected = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    if expected is None:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        file.resolve().unlink()
        file.unlink(missing_ok=True)
        raise InputError(
            f"{repo_id}: {file.name} arrived damaged (its SHA-256 is not the Hub's) and was removed from the "
            "cache. Run the same command again."
        )


def _cached(repo_id: str, revision: str | None, weights: bool, *, why: str, cause: Exception | None = None) -> Path:
    """Folder of an earlier download; raises `InputError` if there is none or its weights are missing."""
    from huggingface_hub import constants, try_to_load_from_cache

    config = try_to_load_from_cache(repo_id, "config.json", revision=revision)
    if isinstance(config, str):
        folder = Path(config).parent
        if not weights or any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
            return folder
        lacks = f"the cache ({constants.HF_HUB_CACHE}) has its configuration but not its weights"
    else:
        of_revision = f" of revision {revision}" if revision else ""
        lacks = f"the cache ({constants.HF_HUB_CACHE}) has no copy{of_revision}"
    raise InputError(
        f"{repo_id}: {why}, and {lacks}.{similar_paths(repo_id)} "
        "Go on with a local folder (model.checkpoint=FOLDER), with --demo, which needs no network, or with a "
        "cache filled where there is a connection (`hf download`, then HF_HUB_OFFLINE=1 and that HF_HOME)."
    ) from cause


def _refusal(error: BaseException, repo_id: str, revision: str | None) -> InputError | None:
    """What the Hub's answer means for the user; None where it gave none, so that the cache may serve."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        # The client's "not in the cache either" hides what the Hub said.
        return _refusal(error.__cause__, repo_id, revision)
    if isinstance(error, errors.GatedRepoError):
        return InputError(
            f"{repo_id}: a gated model. Ask for access on https://huggingface.co/{repo_id}, "
            "then log in (`hf auth login` or HF_TOKEN)."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(
            f"{repo_id}: no such folder here and no such model on the Hub, or a private one "
            f"(then `hf auth login` or HF_TOKEN).{similar_paths(repo_id)}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{repo_id}: the model is on the Hub, revision {revision} of it is not (model.revision).")
    if isinstance(error, PermissionError):
        return InputError(f"{repo_id}: the Hub's cache can't be written ({error}). Set HF_HOME to another folder.")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return InputError(f"{repo_id}: the Hub refuses it (HTTP {status}); is the name right?{similar_paths(repo_id)}")
    return None


def _in_short(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP {status}" if status is not None else (str(error).splitlines() or [type(error).__name__])[0]
