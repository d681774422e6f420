"""What the server of `command_line.py` imports; nothing here computes, so forking stays safe."""

import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers

# isort: split
import datasets  # noqa: F401
import torch  # noqa: F401
from transformers import (  # noqa: F401
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    ErnieForSequenceClassification,
    Trainer,
)
