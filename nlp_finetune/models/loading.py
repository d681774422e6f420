"""A checkpoint as a model in fp32, with one line for everything that is new, changed or left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models import heads, labels, resnet_files, resnets, settings, weights
from nlp_finetune.models.checkpoint import Checkpoint
from nlp_finetune.models.hub import local_folder
from nlp_finetune.models.quiet import quiet
from nlp_finetune.models.tokenizer import largest_id

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Say = Callable[[str], None]


def load_config(checkpoint: Checkpoint, *, overrides: Mapping[str, Any], edits: Mapping[str, Any]) -> PretrainedConfig:
    """Configuration of the checkpoint, with the user's `edits` and what the task `overrides`.

    A family built from scratch gets a vocabulary of `settings.SCRATCH_VOCABULARY` until its tokenizer
    is known. Raises `InputError` for an unknown family, key or value, and for a Hub that can't be reached.
    """
    code: Path | None = None
    if checkpoint.kind == "scratch" and resnets.is_from_scratch(checkpoint.location):
        raw: dict[str, Any] = resnets.scratch_configuration(checkpoint.location)
    elif checkpoint.kind == "scratch":
        raw = {"model_type": checkpoint.location, "vocab_size": settings.SCRATCH_VOCABULARY}
    else:
        folder = local_folder(checkpoint, weights=False)
        raw, code = settings.read_json(folder), folder if checkpoint.trust_remote_code else None
    config = settings.make_config(raw, edits, given=checkpoint.given, code=code)
    settings.apply_overrides(config, overrides)
    config.name_or_path = checkpoint.location
    return config


def check_family(config: PretrainedConfig, *, auto_class: str) -> None:
    """Raise `InputError` if the configuration's family has no model of this Auto class."""
    weights.auto(auto_class, config)


def load_model(
    checkpoint: Checkpoint,
    *,
    auto_class: str,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    head_init: str,
    dropout: float | None,
    activation: str | None,
    seed: int,
    say: Say,
) -> PreTrainedModel:
    """Build or load the model for a task, fp32, in training mode, with a head for `config.num_labels`.

    `config` is left as it is; the model's own copy holds `dropout` and `activation` too. A head that
    has labels is aligned by their names. `say` gets one line about new weights and one for each
    surprise.

    Raises `InputError` if the family lacks such a model, if the weights are missing, damaged or not
    those of this backbone, and if the tokenizer has ids beyond the embedding.
    """
    if activation is not None:
        config = settings.with_activation(config, activation, pretrained=checkpoint.kind != "scratch", say=say)
    if dropout is not None:
        config = settings.with_dropout(config, dropout)
    if checkpoint.kind == "scratch":
        model = _from_scratch(checkpoint, auto_class, config, head_init=head_init, seed=seed, say=say)
    else:
        model = _from_weights(checkpoint, auto_class, config, head_init=head_init, seed=seed, say=say)
    if dropout is not None:
        settings.set_dropout(model, dropout)
    if tokenizer is not None:
        _check_embedding(model, tokenizer, given=checkpoint.given)
    model.config.name_or_path = model.name_or_path = checkpoint.location
    return model.train()


def new_parameters(model: PreTrainedModel) -> frozenset[str]:
    """Names of the parameters that `load_model` drew because the checkpoint lacks them.

    None of a model from scratch: there is no checkpoint that could lack them.
    """
    return getattr(model, "_new_parameters", frozenset())


def load_saved_model(folder: Path, *, auto_class: str, trust_remote_code: bool = False) -> PreTrainedModel:
    """A model that this package saved, complete, in fp32 and evaluation mode.

    `trust_remote_code` is whether a model's own Python code in the folder may be run.

    Raises `InputError` if its files are missing or damaged.
    """
    folder = resnet_files.readable(folder)
    code = folder if trust_remote_code else None
    config = settings.make_config(settings.read_json(folder), {}, given=str(folder), code=code)
    loaded = weights.load(folder, auto_class=auto_class, config=config, given=str(folder))
    if loaded.new or loaded.unused:
        odd = sorted(loaded.new | loaded.unused)
        raise InputError(f"{folder}: weights and config.json do not belong together ({heads.shorten(odd, 3)}).")
    return loaded.model.eval()


def _check_embedding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, given: str) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if largest_id(tokenizer) >= rows:
        raise InputError(
            f"{given}: a vocabulary larger than the embedding. The tokenizer's ids go up to "
            f"{largest_id(tokenizer)}, the model has {rows} rows."
        )


def _from_scratch(
    checkpoint: Checkpoint, auto_class: str, config: PretrainedConfig, *, head_init: str, seed: int, say: Say
) -> PreTrainedModel:
    import torch

    builder = weights.auto(auto_class, config)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            model: PreTrainedModel = builder.from_config(config, dtype=torch.float32, trust_remote_code=False)
        except (ValueError, TypeError, KeyError, AssertionError, RuntimeError, ImportError) as error:
            raise InputError(f"{checkpoint.given}: can't be built with this model.config: {error}") from error
    head = heads.head_names(model)
    if head and head_init != "default":
        heads.draw(model, head, head_init=head_init, seed=seed)
    count = sum(parameter.numel() for parameter in model.parameters())
    say(f"{checkpoint.given}: {count:,} parameters, all drawn at random (seed {seed}): nothing is pretrained")
    return model


def _from_weights(
    checkpoint: Checkpoint, auto_class: str, config: PretrainedConfig, *, head_init: str, seed: int, say: Say
) -> PreTrainedModel:
    folder = local_folder(checkpoint, weights=True, say=say)
    if settings.is_foreign(config):
        say(f"{checkpoint.given}: its own code is run, as model.trust_remote_code says ({type(config).__module__})")
    loaded = weights.load(folder, auto_class=auto_class, config=config, given=checkpoint.given)
    weights.check_backbone(loaded, given=checkpoint.given)
    new = set(loaded.new)
    old = labels.find_old_head(loaded, folder, settings.read_json(folder))
    match: dict[int, int] = {}
    if old is not None:
        names = [config.id2label[row] for row in range(config.num_labels)]
        match = labels.match_labels(old.labels, names)
        if match != dict(enumerate(range(len(old.labels)))) or len(names) != len(old.labels):
            new |= set(old.tensors)
        if not labels.numbered(names) or new & set(old.tensors):
            say(labels.describe_match(old.labels, names, match))
    heads.draw(loaded.model, new, head_init=head_init, seed=seed)
    loaded.model._new_parameters = frozenset(new)
    kept_values = 0
    if old is not None and new & set(old.tensors):
        old.copy_rows(loaded.model, match)
        kept_values = old.values_of(match)
    say(heads.describe(loaded, new, head_init=head_init, kept_values=kept_values))
    unused = weights.describe_unused(loaded)
    if unused is not None:
        say(unused)
    return loaded.model
