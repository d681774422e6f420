"""An encoder with a head of one's own for sequence classification: pooling, hidden layers, norm.

No class of transformers holds such a head for every encoder, so a copy of this file travels with the model:
`pipeline("text-classification", FOLDER, trust_remote_code=True)` loads it, and needs nothing else. It must therefore
import torch and transformers alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import SequenceClassifierOutput


class EncoderWithHeadConfig(PretrainedConfig):  # type: ignore[misc]
    """Configuration of the encoder, as `encoder`, and of the head on it."""

    model_type = "encoder_with_head"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        head_layers: int = 1,
        head_width: int | None = None,
        head_norm: str = "none",
        head_pooling: str = "cls",
        head_activation: str = "gelu",
        head_dropout: float = 0.1,
        **others: Any,
    ) -> None:
        self.encoder = {} if encoder is None else encoder
        self.head_layers = head_layers
        self.head_width = head_width
        self.head_norm = head_norm
        self.head_pooling = head_pooling
        self.head_activation = head_activation
        self.head_dropout = head_dropout
        super().__init__(**others)

    def encoder_config(self) -> PretrainedConfig:
        """The encoder's own configuration."""
        return AutoConfig.for_model(**self.encoder)


class Pooling(nn.Module):
    """One vector `[rows, width]` of the vectors of tokens `[rows, tokens, width]`, padding left out."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.score = nn.Linear(width, 1) if kind == "attention" else None

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.kind == "cls":
            return states[:, 0]
        real = mask.bool().unsqueeze(-1)
        if self.kind == "max":
            return states.masked_fill(~real, torch.finfo(states.dtype).min).amax(1)
        if self.score is None:  # mean
            return (states * real).sum(1) / real.sum(1).clamp_min(1)
        scores = self.score(states).masked_fill(~real, torch.finfo(states.dtype).min)
        mean: Tensor = (scores.softmax(1) * states).sum(1)
        return mean


class Head(nn.Module):
    """Hidden layers, each linear, normed, activated and with dropout, and one score a class."""

    def __init__(self, config: EncoderWithHeadConfig, width: int) -> None:
        super().__init__()
        norms: dict[str, Any] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": lambda _: nn.Identity()}
        hidden = config.head_width or width
        self.layers = nn.ModuleList()
        for number in range(config.head_layers):
            self.layers.append(
                nn.ModuleDict(
                    {
                        "linear": nn.Linear(width if number == 0 else hidden, hidden),
                        "norm": norms[config.head_norm](hidden),
                        "activation": ACT2FN[config.head_activation],
                        "dropout": nn.Dropout(config.head_dropout),
                    }
                )
            )
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(hidden if config.head_layers else width, config.num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        pooled = self.dropout(pooled)
        for layer in self.layers:
            for part in layer.children():
                pooled = part(pooled)
        scores: Tensor = self.classifier(pooled)
        return scores


class EncoderWithHeadForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    """Any encoder of transformers, pooled, with a head of one's own."""

    config_class = EncoderWithHeadConfig
    base_model_prefix = "encoder"

    def __init__(self, config: EncoderWithHeadConfig) -> None:
        super().__init__(config)
        own = config.encoder_config()
        self.num_labels = config.num_labels
        self.encoder = AutoModel.from_config(own)
        # Vectors of tokens are pooled here: a pooler of the encoder would never be trained.
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None
        self.pooling = Pooling(config.head_pooling, own.hidden_size)
        self.head = Head(config, own.hidden_size)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        found = self.encoder(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **others)
        states = found.last_hidden_state
        if attention_mask is None:
            attention_mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        logits = self.head(self.pooling(states, attention_mask))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def register() -> None:
    """Make the Auto classes know this model, and let what is saved carry this file."""
    AutoConfig.register(EncoderWithHeadConfig.model_type, EncoderWithHeadConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(
        EncoderWithHeadConfig, EncoderWithHeadForSequenceClassification, exist_ok=True
    )
    EncoderWithHeadConfig.register_for_auto_class("AutoConfig")
    EncoderWithHeadForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
