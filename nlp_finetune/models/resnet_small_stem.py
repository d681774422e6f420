"""A ResNet for small images: its stem is one 3x3 convolution that keeps the size, without pooling.

The usual stem (7x7, stride 2, then pooling) leaves 8 of 32 pixels a side before the first block. As He et al.
2015, Deep Residual Learning for Image Recognition, section 4.2, have it for CIFAR-10.

transformers' own ResNet can't hold this stem, nor can timm's, so a copy of this file travels with the
model: `pipeline("image-classification", FOLDER, trust_remote_code=True)` loads it, and needs nothing else.
It must therefore import torch and transformers alone.
"""

from __future__ import annotations

from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification
from transformers.models.resnet.modeling_resnet import ResNetConvLayer


class ResNetSmallStemConfig(ResNetConfig):  # type: ignore[misc]
    """Configuration of a ResNet whose stem is for small images."""

    model_type = "resnet_small_stem"


class ResNetSmallStemForImageClassification(ResNetForImageClassification):  # type: ignore[misc]
    """transformers' ResNet with the stem for small images."""

    config_class = ResNetSmallStemConfig

    def __init__(self, config: ResNetSmallStemConfig) -> None:
        super().__init__(config)
        stem = self.resnet.embedder
        stem.embedder = ResNetConvLayer(
            config.num_channels, config.embedding_size, kernel_size=3, stride=1, activation=config.hidden_act
        )
        stem.pooler = nn.Identity()
        self.post_init()


def register() -> None:
    """Make the Auto classes know this model, and let what is saved carry this file."""
    AutoConfig.register(ResNetSmallStemConfig.model_type, ResNetSmallStemConfig, exist_ok=True)
    AutoModelForImageClassification.register(
        ResNetSmallStemConfig, ResNetSmallStemForImageClassification, exist_ok=True
    )
    ResNetSmallStemConfig.register_for_auto_class("AutoConfig")
    ResNetSmallStemForImageClassification.register_for_auto_class("AutoModelForImageClassification")
