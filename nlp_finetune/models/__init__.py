"""Checkpoints, tokenizers, heads and what a model consists of."""

import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers
