"""A finished run as `train` leaves it: a tiny BERT with random weights, and files that nobody may see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import BertConfig, BertTokenizer

LABELS = ["bad", "<script>|`good`", "so-so"]
PRIVATE_FOLDER = "/home/somebody/models/tiny-bert"
NOT_PUSHED = ("training_args.bin", "optimizer.pt", "rng_state.pth", "notes.txt")
_WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    "the", "soup", "was", "cold", "warm", "good", "bad", "so", "not", "very", "a", "film", "##s", "##ly",
]  # fmt: skip
_METRICS = {
    "best": {"step": 4, "epoch": 1.0, "metric": "accuracy", "value": 0.75},
    "validation": {"loss": 0.7, "rows": 40, "accuracy": 0.75, "macro_f1": 0.7, "accuracy_ci95": [0.6, 0.86]},
    "baselines": {},
    "train": {"samples_per_second": 10.0, "seconds": 1.0, "steps": 4},
}


def make_run(path: str) -> None:
    """Write the run into a new folder."""
    folder = Path(path)
    model = folder / "model"
    model.mkdir(parents=True)
    _save_model(model)
    _save_recipe(folder)
    facts = {"problem": "single_label", "labels": LABELS, "text": ["text"], "label": "label", "thresholds": None}
    _write(model / "task.json", {"task": "text_classification", "facts": facts})
    _write(folder / "metrics.json", _METRICS)
    _write(folder / "status.json", {"state": "finished", "exit_code": 0, "reason": "", "step": 4})
    _write(folder / "environment.json", {"command": ["run.py", f"output_dir={folder}"], "python": "3.11.7"})
    _write(folder / "check.json", {"splits": {"validation": 40}, "example": ["good soup"], "findings": []})
    base = {"kind": "folder", "given": PRIVATE_FOLDER}
    _write(folder / "sources.json", {"base": base, "data": {"kind": "file", "given": f"{PRIVATE_FOLDER}/reviews.csv"}})
    for name in NOT_PUSHED:
        (model / name).write_bytes(b"not for anybody")
    (folder / ".env").write_text("SECRET=1")
    (folder / "checkpoints" / "step-4").mkdir(parents=True)


def make_base(path: str) -> None:
    """Write a tiny pretrained BERT, with no head, into a new folder."""
    import torch
    from transformers import BertModel

    torch.manual_seed(1)
    BertModel(_config()).save_pretrained(path)
    _tokenizer().save_pretrained(path)
    Path(path, "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n\n# A tiny BERT\n", encoding="utf-8")


def _config(**settings: Any) -> BertConfig:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(_WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.3, **settings,
    )  # fmt: skip


def _tokenizer() -> BertTokenizer:
    from transformers import BertTokenizer

    return BertTokenizer(vocab={word: i for i, word in enumerate(_WORDS)})


def _save_model(folder: Path) -> None:
    import torch
    from transformers import BertForSequenceClassification

    config = _config(
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
        problem_type="single_label_classification",
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text("utf-8"))
        _write(folder / name, {**content, "_name_or_path": PRIVATE_FOLDER, "vocab_file": f"{PRIVATE_FOLDER}/v.txt"})


def _save_recipe(folder: Path) -> None:
    from nlp_finetune.recipe import load, to_yaml
    from nlp_finetune.tasks import base

    overrides = [
        f"model.checkpoint={PRIVATE_FOLDER}", f"data.source={PRIVATE_FOLDER}/reviews.csv",
        f"output_dir={folder}", "optim.learning_rate=1e-5", "task.max_length=32",
    ]  # fmt: skip
    recipe = load("text_cls", overrides=overrides, task_options=base.options_of, task_names=base.names()).recipe
    (folder / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
