"""Losses, optimizers, schedules and the callbacks that steer a run."""

import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers
