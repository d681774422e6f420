"""Two engines that fit a `Job`: `trainer` (transformers.Trainer) and `accelerate` (an explicit loop)."""

import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers
