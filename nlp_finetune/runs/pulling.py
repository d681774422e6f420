"""Where a RUN is: a run folder, a copy of a pushed one, or a repository that is fetched from the Hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nlp_finetune.errors import InputError, NlpFinetuneError
from nlp_finetune.models.checkpoint import similar_paths
from nlp_finetune.models.hub import LOOK_UP_TIMEOUT_S, snapshot
from nlp_finetune.runs import remote
from nlp_finetune.runs.folder import TASK_FILE, RunFolder
from nlp_finetune.runs.remote import patiently
from nlp_finetune.runs.staging import ADAPTER, OF_THE_RUN, is_code, is_managed

Say = Callable[[str], None]
_LOOK_UP_WAITS_S = (1.0,)
"""Short: the run may well be a folder whose name is mistyped."""
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class Located:
    """A finished run on this machine, and the folder of its weights: in a pushed run, its root."""

    folder: RunFolder
    weights: Path


def locate(run: str, *, code: bool = False, say: Say) -> Located:
    """Find a run by its folder, or by its id on the Hub: OWNER/NAME, or OWNER/NAME@REVISION.

    `code` is whether the Python code of a model on the Hub is fetched too.

    Raises `InputError` where there is no finished run, and as `fetch` does.
    """
    path = Path(run).expanduser()
    repo_id, _, revision = run.partition("@")
    if not path.exists() and remote.is_repo_id(repo_id):
        path = fetch(repo_id, revision=revision or None, code=code, say=say)
    folder = RunFolder(path)
    weights = next((f for f in (folder.model, path) if (f / TASK_FILE).is_file()), None)
    if weights is not None and folder.recipe.is_file():
        return Located(folder, weights)
    if folder.recipe.is_file():
        raise InputError(f"{run}: this run has no finished model yet. Run its train command again.")
    holds = ", ".join(sorted(p.name for p in path.iterdir())[:8]) if path.is_dir() else "it does not exist"
    similar = "" if path.exists() else similar_paths(run)
    raise InputError(
        f"{run}: not a run folder ({holds or 'it is empty'}).{similar} "
        "Give the output_dir of a train run, or the Hub id of a pushed one (OWNER/NAME)."
    )


def fetch(repo_id: str, *, revision: str | None, code: bool = False, say: Say) -> Path:
    """Folder with a pushed run: one commit of its repository, every file compared with the Hub's hashes.

    The folder's name is the commit. Without a connection the copy of an earlier fetch serves.

    Raises `InputError` for a repository that is not there, or not allowed, or not a pushed run, and
    where neither Hub nor cache has it; `NlpFinetuneError` for files that arrive damaged or not at all.
    """
    from huggingface_hub import HfApi, constants

    if constants.is_offline_mode():
        return _cached(repo_id, revision, say, why="HF_HUB_OFFLINE is set")
    look_up = partial(HfApi().model_info, repo_id, revision=revision, timeout=LOOK_UP_TIMEOUT_S)
    try:
        info = patiently(look_up, repo_id, waits_s=_LOOK_UP_WAITS_S)
    except InputError as error:
        raise InputError(f"There is no run folder {repo_id}.{similar_paths(repo_id)} On the Hub, {error}") from error
    except NlpFinetuneError as error:
        return _cached(repo_id, revision, say, why="the Hub can't be reached", cause=error)
    names = {file.rfilename for file in info.siblings or []}
    lacking = {"recipe.yaml", TASK_FILE} - names
    if lacking:
        raise InputError(
            f"{repo_id}: not a run that this package pushed (no {' and no '.join(sorted(lacking))} in it). "
            f"To fine-tune it: model.checkpoint={repo_id}"
        )
    is_adapter = ADAPTER in names
    if not is_adapter and not names.intersection(_WEIGHTS):
        raise InputError(f"{repo_id}: no weights in safetensors, and no others are loaded as a run's.")
    commit = str(info.sha)
    say(f"{repo_id}: commit {commit}")
    # Weights that are no adapter go through `snapshot`, which checks their hashes as they arrive.
    wanted = [name for name in names if is_managed(name) or (code and is_code(name))]
    small = sorted(name for name in wanted if is_adapter or not name.endswith(".safetensors"))
    folder = patiently(partial(_fetch_files, repo_id, revision, commit, small), repo_id)
    if not is_adapter:
        snapshot(repo_id, revision=commit, weights=True, say=say)
    return folder


def _fetch_files(repo_id: str, revision: str | None, commit: str, names: list[str]) -> Path:
    """Fetch files of one commit; those that arrive damaged are removed from the cache again."""
    from huggingface_hub import HfApi, snapshot_download

    # By the revision's own name, under which the cache then has it when the Hub is out of reach.
    folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=names))
    if folder.name != commit:
        raise RuntimeError("the repository changed while it was read")
    damaged = remote.differing(folder, names, HfApi().list_repo_tree(repo_id, revision=commit, recursive=True))
    for name in damaged:
        (folder / name).resolve().unlink(missing_ok=True)
        (folder / name).unlink(missing_ok=True)
    if damaged:
        raise RuntimeError(f"{', '.join(damaged)} arrived damaged (the hashes are not the Hub's)")
    return folder


def _cached(repo_id: str, revision: str | None, say: Say, *, why: str, cause: Exception | None = None) -> Path:
    from huggingface_hub import constants, try_to_load_from_cache

    found = [try_to_load_from_cache(repo_id, n, revision=revision) for n in (OF_THE_RUN[0], TASK_FILE)]
    if all(isinstance(file, str) for file in found) and any(
        (folder := Path(str(found[0])).parent).glob("*.safetensors")
    ):
        say(f"{repo_id}: {why}; the cached copy serves, commit {folder.name}")
        return folder
    raise InputError(
        f"There is no run folder {repo_id}.{similar_paths(repo_id)} As a run on the Hub it can't be fetched "
        f"({why}), and the cache ({constants.HF_HUB_CACHE}) has no whole copy."
    ) from cause
