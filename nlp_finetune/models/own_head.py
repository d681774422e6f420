"""A head of one's own on the encoder of a checkpoint (`encoder_with_head.py` is what is saved with it)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models import heads
from nlp_finetune.models.loading import load_model, new_parameters
from nlp_finetune.models.settings import OWN_HEAD, is_foreign, reads_both_ways

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from nlp_finetune.models.encoder_with_head import EncoderWithHeadConfig

AUTO_CLASS = "AutoModelForSequenceClassification"
"""What such a head is for."""
_DROPOUTS = ("classifier_dropout", "hidden_dropout_prob", "dropout", "resid_pdrop", "hidden_dropout", "embd_pdrop")
_LABELS = ("num_labels", "id2label", "label2id", "problem_type")


@dataclass(frozen=True)
class OwnHead:
    """Hidden layers of a head, their width (None: the encoder's) and norm, and how tokens are pooled."""

    layers: int
    width: int | None
    norm: str
    pooling: str


def check(config: PretrainedConfig, head: OwnHead, *, auto_class: str, task: str) -> None:
    """Raise `InputError` where a model of this configuration can't have this head."""
    kind = config.model_type
    if auto_class != AUTO_CLASS:
        raise InputError(
            f"head: {task} has the head of its model's family; a head of one's own is for classes of texts."
        )
    if kind == OWN_HEAD:
        raise InputError("head: the checkpoint brings a head of its own, which goes on as it is; leave head null.")
    if is_foreign(config):
        raise InputError("head: a model that brings its own code keeps its own head; leave head null.")
    if getattr(config, "is_encoder_decoder", False) or not isinstance(getattr(config, "hidden_size", None), int):
        raise InputError(f"head: {kind} is no plain encoder; leave head null.")
    if head.pooling == "cls" and not reads_both_ways(config):
        raise InputError(f"head.pooling cls: the first token of {kind} sees none of the others; use mean.")


def make_config(config: PretrainedConfig, head: OwnHead, *, dropout: float | None) -> EncoderWithHeadConfig:
    """Configuration of the encoder with its head; `dropout` None is what the encoder has."""
    from nlp_finetune.models.encoder_with_head import EncoderWithHeadConfig, register

    register()
    encoder = config.to_dict()
    for name in ("_name_or_path", "architectures", *_LABELS):
        encoder.pop(name, None)
    encoder["model_type"] = config.model_type
    found = (getattr(config, name, None) for name in _DROPOUTS)
    usual = next((value for value in found if isinstance(value, float)), 0.1)
    return EncoderWithHeadConfig(
        encoder=encoder,
        head_layers=head.layers,
        head_width=head.width,
        head_norm=head.norm,
        head_pooling=head.pooling,
        head_dropout=usual if dropout is None else dropout,
        pad_token_id=config.pad_token_id,
        max_position_embeddings=getattr(config, "max_position_embeddings", None),
        initializer_range=getattr(config, "initializer_range", None) or 0.02,
        **{name: getattr(config, name) for name in _LABELS},
    )


def bare(config: PretrainedConfig, head: OwnHead) -> PreTrainedModel:
    """The model with weights drawn at random, to be looked at."""
    from nlp_finetune.models.encoder_with_head import EncoderWithHeadForSequenceClassification

    return EncoderWithHeadForSequenceClassification(make_config(config, head, dropout=None))


def load(
    checkpoint: Any,
    head: OwnHead,
    *,
    config: PretrainedConfig,
    tokenizer: Any,
    head_init: str,
    dropout: float | None,
    activation: str | None,
    seed: int,
    say: Callable[[str], None],
) -> PreTrainedModel:
    """The checkpoint's encoder, as `load_model` loads it, under this head, which is drawn by `head_init` and `seed`."""
    import torch

    from nlp_finetune.models.encoder_with_head import EncoderWithHeadForSequenceClassification

    encoder = load_model(
        checkpoint, auto_class="AutoModel", config=config, tokenizer=tokenizer, head_init="default",
        dropout=dropout, activation=activation, seed=seed, say=say,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model = EncoderWithHeadForSequenceClassification(make_config(encoder.config, head, dropout=dropout))
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    model.encoder.load_state_dict(encoder.state_dict())
    drawn = {name for name, _ in model.named_parameters() if not name.startswith("encoder.")}
    heads.draw(model, drawn, head_init=head_init, seed=seed)
    there = {name for name, _ in model.named_parameters()}
    model._new_parameters = frozenset(drawn | {f"encoder.{name}" for name in new_parameters(encoder)} & there)
    model.config.name_or_path = model.name_or_path = encoder.name_or_path
    say(_describe(model, head, head_init))
    return model.train()


def _describe(model: Any, head: OwnHead, head_init: str) -> str:
    chain = [model.head.classifier.in_features, model.config.num_labels]
    if head.layers:
        chain = [
            model.encoder.config.hidden_size,
            *[layer["linear"].out_features for layer in model.head.layers],
            chain[-1],
        ]
    norm = "" if head.norm == "none" else f", {head.norm} norm"
    count = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("encoder."))
    return (
        f"head of one's own: {head.pooling} pooling, {'->'.join(map(str, chain))}{norm}, {heads.DRAWN_BY[head_init]}, "
        f"{count:,} parameters. No class of transformers holds it: model/ carries its code, and loads with "
        "trust_remote_code=True"
    )
