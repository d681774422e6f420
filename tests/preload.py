"""What the server of `command_line.py` imports; nothing here computes, so forking stays safe."""

import datasets  # noqa: F401
import sklearn.feature_extraction.text
import sklearn.linear_model
import torch  # noqa: F401

import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers

import transformers  # isort: skip
from transformers import (  # noqa: F401
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    ErnieForSequenceClassification,
    Trainer,
)
