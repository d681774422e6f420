"""The run folder, its checkpoints, and the callbacks that write them."""

import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers
