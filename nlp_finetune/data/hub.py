"""Data sets of the Hugging Face Hub, or of its cache where the Hub is out of reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlp_finetune.data import paths
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder
    from huggingface_hub import DatasetInfo

_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ANSWER_WITHIN_S = 5.0
_INSTEAD = "use a local file (data.source=FILE) or try the recipe's own small data with --demo"


@dataclass(frozen=True)
class HubData:
    """One configuration of a data set, on this machine: names of its splits, and how to read them."""

    splits: list[str]
    read: Callable[[str], Dataset]
    """Takes a name of a split or a slice of one, `train[:90%]`."""
    notes: list[str]
    about: dict[str, Any]
    """The commit as `revision`, and `licence` and `language` as far as the Hub tells them."""


def load(source: str, *, config: str | None, revision: str | None) -> HubData:
    """Load a data set by its id, `owner/name` or `owner/name:config`.

    The Hub is asked once, with a short time limit, before anything is downloaded; out of reach, the
    copy in the cache is taken and that is said, unless it is of another revision than the one asked
    for. Raises `InputError` saying how to go on.
    """
    name, config = _parse(source, config)
    info = _info(name, revision)
    try:
        if info is None:
            return _from_cache(name, config=config, revision=revision)
        from datasets import load_dataset_builder

        builder = load_dataset_builder(name, name=config, revision=info.sha)
        builder.download_and_prepare()
        return _prepared(builder, [], _about(info))
    except InputError:
        raise
    except Exception as error:
        # Anything may come out of here: errors of the Hub's client, of the network, of the disk, of
        # whatever format the files are in. The user needs to know which data set, and what to do.
        raise InputError(_explain(error, name, config)) from error


def _about(info: DatasetInfo) -> dict[str, Any]:
    card = info.card_data
    named = {
        "revision": info.sha,
        "licence": getattr(card, "license", None),
        "language": getattr(card, "language", None),
    }
    return {name: value for name, value in named.items() if isinstance(value, str | list) and value}


def _prepared(builder: DatasetBuilder, notes: list[str], about: dict[str, Any]) -> HubData:
    def read(split: str) -> Dataset:
        try:
            return builder.as_dataset(split=split)
        except (ValueError, AssertionError) as error:
            raise InputError(f"{builder.repo_id}: no such split, {split}: {error}") from error

    return HubData(splits=list(builder.info.splits), read=read, notes=notes, about=about)


def _parse(source: str, config: str | None) -> tuple[str, str | None]:
    name, _, named = source.partition(":")
    if not _ID.fullmatch(name) or (":" in source and not named):
        raise InputError(f"data.source={source} is neither a file, a folder, demo:NAME nor a data set id (owner/name).")
    if named and config is not None and named != config:
        raise InputError(f"data.source={source} and data.config={config} name two configurations.")
    return name, named or config


def _info(name: str, revision: str | None) -> DatasetInfo | None:
    """What the Hub says about a data set at a revision, its commit among it; None if the Hub is out of reach."""
    from huggingface_hub import HfApi, errors
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as installed

    try:
        return HfApi().dataset_info(name, revision=revision, timeout=_ANSWER_WITHIN_S)
    except errors.GatedRepoError as error:
        raise InputError(_gated(name)) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"The data set {name} has no revision {revision} on the Hub.") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"There is no data set {name} on the Hub, or it is private and HF_TOKEN gives no access to it, "
            f"and there is no file or folder of that name.{_local_hint(name)} Check the name, or {_INSTEAD}."
        ) from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code in (408, 429) or error.response.status_code >= 500:
            return None
        raise InputError(f"The Hub refuses the data set {name}: {error}. Instead, {_INSTEAD}.") from error
    except (OSError, httpx.TransportError):  # OfflineModeIsEnabled is a ConnectionError
        return None


def _from_cache(name: str, *, config: str | None, revision: str | None) -> HubData:
    from datasets import load_dataset_builder

    try:
        with _hub_taken_as_offline():
            builder = load_dataset_builder(name, name=config)
            builder.download_and_prepare()
    except Exception as error:
        # Several configurations, or not the one asked for: the library names those that are there.
        configs = " (" + " ".join(str(error).split()) + ")" if "config" in str(error) else ""
        raise InputError(
            f"The Hub cannot be reached (or HF_HUB_OFFLINE is set), and {name} is not in the cache{configs}."
            f"{_local_hint(name)} To go on without the Hub, {_INSTEAD}; "
            "or fill the cache (HF_HOME) where there is a network."
        ) from error
    if revision is not None and _COMMIT.fullmatch(revision) and builder.hash != revision:
        raise InputError(
            f"The Hub cannot be reached, and the cache has {name} at revision {builder.hash}, "
            f"not at {revision}. "
            f"To use the cached one, set data.revision={builder.hash}."
        )
    note = f"{name}: the Hub cannot be reached, taken from the cache (revision {builder.hash})"
    return _prepared(builder, [note], {"revision": builder.hash})


@contextmanager
def _hub_taken_as_offline() -> Iterator[None]:
    """Spare the retries (half a minute) of a client that does not know yet what we know."""
    import datasets

    verbosity = datasets.logging.get_verbosity()
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
        datasets.logging.set_verbosity(verbosity)


def _local_hint(name: str) -> str:
    similar = paths.similar_names(name)
    return f" Did you mean {' or '.join(similar)} on this machine?" if similar else ""


def _gated(name: str) -> str:
    return (
        f"The data set {name} is gated: ask for access at https://huggingface.co/datasets/{name}, "
        "then set HF_TOKEN (or run `hf auth login`)."
    )


def _explain(error: Exception, name: str, config: str | None) -> str:
    text = str(error).strip() or type(error).__name__
    if "gated" in text:
        return _gated(name)
    if "scripts are no longer supported" in text:
        return (
            f"The data set {name} is a Python script, which `datasets` no longer runs. Try its Parquet copy, "
            "data.revision=refs/convert/parquet, or look for the same data under another id on the Hub."
        )
    if "onfig name is missing" in text or ("BuilderConfig" in text and "not found" in text):
        available = re.findall(r"\[.*?\]", text)
        listed = f" It has {available[0]}." if available else ""
        wanted = f"has no configuration {config}" if config else "has several configurations"
        return f"The data set {name} {wanted}.{listed} Choose one with data.source={name}:CONFIG."
    short = f"{type(error).__name__}: {text[:300]}"
    return f"The data set {name} cannot be loaded: {short}. Try again, or {_INSTEAD}."
