"""A saved adapter as a whole model again: its base fetched, at the commit it names, and it merged in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nlp_finetune.errors import InputError
from nlp_finetune.models import adapters, base_weights, settings, weights
from nlp_finetune.models.checkpoint import resolve
from nlp_finetune.models.heads import shorten
from nlp_finetune.models.hub import local_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def is_saved_in(folder: Path) -> bool:
    """Whether a folder holds an adapter that `adapters.export` wrote."""
    return (folder / adapters.CONFIG).is_file()


def _check_unchanged(folder: Path, base: Path) -> None:
    """Raise `InputError` where the base has other weights than those that the adapter was trained on."""
    known = base_weights.read(folder / adapters.BASE_CONFIG)
    if known is not None and known != base_weights.digest(base):
        raise InputError(
            "Its weights have changed since the adapter was trained on them. Put the former ones back, or use the "
            "run's `model/`, where the adapter is merged."
        )


def load_merged(folder: Path, *, auto_class: str, say: Callable[[str], None]) -> PreTrainedModel:
    """The whole model of an adapter that `adapters.export` wrote: its base at the commit it names, with it merged in.

    In fp32 and evaluation mode. Raises `InputError` where the base can't be had (the Hub is out of reach,
    the base is gone or gated), and where base and adapter do not belong together.
    """
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import GenerationConfig

    config = PeftConfig.from_pretrained(str(folder))
    base, revision = config.base_model_name_or_path, config.revision
    shown = f"{base}, commit {revision}" if revision else base
    try:
        source = resolve(base, revision=revision)
        found = local_folder(source, weights=True, say=say)
        _check_unchanged(folder, found)
        loaded = weights.load(
            found,
            auto_class=auto_class,
            config=settings.make_config(settings.read_json(folder / adapters.BASE_CONFIG), {}, given=str(folder)),
            given=base,
        )
    except InputError as error:
        raise InputError(f"This run is an adapter for {shown}, which can't be loaded. {error}") from error
    with torch.random.fork_rng(devices=[]):
        adapted = PeftModel(loaded.model, config)
    whole = tuple(f"{name}." for name in config.modules_to_save or ())
    lost = sorted(name for name in loaded.new if not name.startswith(whole))
    if lost:
        raise InputError(f"This run is an adapter for {shown}, which lacks {shorten(lost, 3)}. Is it the right base?")
    adapters.load(adapted, folder)
    if (folder / "generation_config.json").is_file():
        loaded.model.generation_config = GenerationConfig.from_pretrained(folder)
    return adapters.merge(adapted).eval()
