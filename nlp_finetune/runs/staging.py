"""What of a run is pushed: a copy of chosen files, without paths of this machine, checked for tokens.

A repository is `model/` at its root, with recipe.yaml, metrics.json and the card (README.md).
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from nlp_finetune.errors import InputError
from nlp_finetune.models import adapters
from nlp_finetune.recipe import nodes
from nlp_finetune.runs import card as cards
from nlp_finetune.runs.card.facts import read_recipe
from nlp_finetune.runs.folder import TASK_FILE, RunFolder, read_json, write_json, write_text
from nlp_finetune.runs.neutral import public, public_keys

CARD = "README.md"
OF_THE_RUN = ("recipe.yaml", "metrics.json", CARD)
ADAPTER = adapters.CONFIG
ADAPTED = f"{adapters.BASE_CONFIG}/config.json"
"""Configuration of an adapter's base, label names among it; at the root it would pass for a model's."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
OF_THE_MODEL = (
    *WEIGHTS, TASK_FILE, ADAPTER, ADAPTED, "from_pretrained.json", "config.json", "generation_config.json",
    "preprocessor_config.json", "processor_config.json", "resnet_small_stem.py", "encoder_with_head.py",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "*.model", "*.spm", "*.tiktoken", "tekken.json",
    "chat_template.jinja",
)  # fmt: skip
"""Names of a model's files that are pushed. Nothing else is: no pickles, no optimizer state, no logs."""
CODE = "*.py"
"""A model's own Python code: pushed where its recipe said that it may be run, and fetched on request only."""
_HOLDS_PATHS = (
    "config.json",
    "tokenizer_config.json",
    ADAPTER,
    ADAPTED,
    "from_pretrained.json",
    "preprocessor_config.json",
)
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")
_SHORTEST_TOKEN = 8


@dataclass(frozen=True)
class Staged:
    """A folder that holds exactly what is pushed, and what of the run's model was left out."""

    folder: Path
    names: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum((self.folder / name).stat().st_size for name in self.names)


def is_managed(name: str) -> bool:
    """Whether a path in a repository is that of a file that a push writes, and so may delete."""
    return name == ADAPTED or ("/" not in name and _is_listed(name, (*OF_THE_RUN, *OF_THE_MODEL)))


def is_code(name: str) -> bool:
    """Whether a path in a repository is that of a model's own Python code."""
    return "/" not in name and _is_listed(name, [CODE])


def to_be_pushed(folder: RunFolder, weights: Path, *, merge: bool, say: Callable[[str], None]) -> Path:
    """Folder of the model's files to push: the run's adapter where it has one, else the whole model.

    With `merge`, and for an adapter whose base is not on the Hub (where nobody else would find it), it
    is the whole model too: `weights`, in which the adapter is merged already.
    """
    adapter = folder.adapter / ADAPTER
    if not adapter.is_file():
        if merge and not (weights / ADAPTER).is_file():
            say("--merge: this run has no adapter, its whole model is pushed anyway")
        return weights
    base = read_json(adapter)
    if merge:
        return weights
    if not base.get("revision"):
        say("the base of the adapter is not on the Hub, so the merged model is pushed")
        return weights
    say(f"pushing the adapter for {base['base_model_name_or_path']}; --merge pushes the whole model")
    return folder.adapter


def _is_listed(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def stage(folder: RunFolder, target: Path, *, repo_id: str, weights: Path | None = None) -> Staged:
    """Copy what is to be pushed of a finished run into an empty folder.

    `weights` is the folder of the model's files where it is not the run's `model/` (see `to_be_pushed`).
    The card is written for a repository called `repo_id`, unless the user has edited the run's.

    Raises `InputError` for a run without metrics or safetensors, for a card whose header is no YAML,
    and where a Hub token stands in any of the files.
    """
    source = weights or folder.model
    present = [name for name in _files(source) if name not in OF_THE_RUN]
    trusted = (read_recipe(folder.recipe).get("model") or {}).get("trust_remote_code")
    pushed = (*OF_THE_MODEL, CODE) if trusted else OF_THE_MODEL
    names = [name for name in present if _is_listed(name, pushed)]
    if not folder.metrics.is_file():
        raise InputError(f"{folder}: this run is not finished (no metrics.json). Run its train command again.")
    if not any(_is_listed(name, WEIGHTS) for name in names):
        raise InputError(f"{source}: no weights in safetensors, and nothing else is pushed.")
    target.mkdir(parents=True, exist_ok=True)
    _copy(source, target, names)
    if TASK_FILE not in names:  # an adapter's folder has none of its own
        _copy(folder.model, target, [TASK_FILE])
    _copy(folder.path, target, [name for name in OF_THE_RUN if name != CARD])
    _write_card(folder, source, target / CARD, repo_id)
    _without_local_paths(target)
    _check_card(target / CARD)
    staged = _files(target)
    _refuse_tokens(target, staged, source=folder.path)
    return Staged(target, tuple(staged), tuple(name for name in present if name not in names))


def _files(folder: Path) -> list[str]:
    """Names of the files of a model's folder, and of the base's configuration below it."""
    names = [file.name for file in folder.iterdir() if file.is_file()]
    return sorted([*names, ADAPTED] if (folder / ADAPTED).is_file() else names)


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        try:
            shutil.copyfile(source / name, target / name)
        except OSError as error:
            raise InputError(
                f"{source / name}: can't be copied to {target} ({error.strerror}). "
                "Set TMPDIR to a folder with room for the model."
            ) from error


def _without_local_paths(target: Path) -> None:
    """Take paths of this machine out of recipe and configurations, and the owner's repository out of the recipe."""
    file = target / "recipe.yaml"
    recipe = read_recipe(file)
    for section in ("model", "data", "demo"):
        if section in recipe:
            recipe[section] = public(recipe[section])
    recipe["output_dir"] = None
    # Whoever runs this recipe again must not push to the repository that it comes from.
    recipe.pop("hub", None)
    write_text(file, nodes.dump(recipe))
    base = str((recipe.get("model") or {}).get("checkpoint") or "")
    for name in _HOLDS_PATHS:
        if (target / name).is_file():
            content = read_json(target / name)
            cleaned = public_keys(content, base)
            if cleaned != content:
                write_json(target / name, cleaned)


def _write_card(folder: RunFolder, source: Path, card: Path, repo_id: str) -> None:
    """Put the card for this repository beside the model's files; one that its user has edited stays as it is."""
    there = folder.card.read_text(encoding="utf-8") if folder.card.is_file() else None
    was_adapter, is_adapter = ((place / ADAPTER).is_file() for place in (folder.path, source))
    # A pushed run lacks most of what its card was written from.
    is_pushed_run = not folder.check.is_file() and was_adapter == is_adapter
    if there is not None and (is_pushed_run or cards.is_edited(there)):
        write_text(card, there)
    else:
        write_text(card, cards.for_repository(folder, source, repo_id=repo_id))


def _check_card(card: Path) -> None:
    from huggingface_hub import ModelCard

    try:
        ModelCard(card.read_text(encoding="utf-8"))
    except Exception as error:
        # PyYAML's errors, ValueErrors of the card's classes, and whatever their constructors raise.
        raise InputError(f"{CARD}: its YAML header can't be read ({' '.join(str(error).split())}).") from error


def _refuse_tokens(target: Path, names: Iterable[str], *, source: Path) -> None:
    """Raise `InputError` where a file holds this user's token, or a text the token of anybody."""
    secrets = [token.encode() for token in _tokens() if len(token) >= _SHORTEST_TOKEN]
    # The card last: what it tells comes from the others.
    for name in sorted(names, key=lambda name: name == CARD):
        if _holds(target / name, secrets):
            raise InputError(
                f"{name} holds a Hub token: nothing is pushed. Take it out of that file in {source}, "
                "and make the token invalid if anybody else has seen it."
            )


def _holds(file: Path, secrets: Iterable[bytes]) -> bool:
    if file.stat().st_size == 0:
        return False
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if any(content.find(secret) >= 0 for secret in secrets):
            return True
        # Chance alone could spell something like a token in gigabytes of weights.
        return file.suffix != ".safetensors" and _TOKEN.search(content) is not None


def _tokens() -> set[str]:
    from huggingface_hub import get_token

    known = {get_token(), *(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))}
    return {token for token in known if token}
