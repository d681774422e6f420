"""A small model of any family for any task, from configuration, with a tokenizer fitted on the task's rows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from nlp_finetune import inference
from nlp_finetune.data import drawing
from nlp_finetune.errors import InputError
from nlp_finetune.learning.losses import build_loss
from nlp_finetune.models.checkpoint import Checkpoint, resolve
from nlp_finetune.models.loading import check_family, load_config, load_model
from nlp_finetune.models.settings import apply_overrides
from nlp_finetune.runtime import Runtime
from nlp_finetune.tasks.base import BaseTask, find, options_of
from tests.models.conftest import SIZES

_BERT = SIZES["bert"]
FAMILIES: dict[str, dict[str, Any]] = {
    **{name: dict(sizes) for name, sizes in SIZES.items()},
    "deberta": {**_BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "mpnet": _BERT,
    "xlm-roberta": _BERT,
}
"""Families and sizes that keep them to a few thousand parameters."""
WORDS = [
    "the", "old", "man", "sells", "warm", "chestnuts", "near", "a", "bridge", "while", "rain", "falls", "on", "slow",
    "grey", "boats",
]  # fmt: skip
TEXTS = [" ".join(WORDS[i : i + n]) for i, n in ((0, 3), (2, 9), (5, 1), (1, 12), (7, 6), (3, 5), (6, 2), (4, 11))]
ROWS: dict[str, dict[str, list[Any]]] = {
    "text_classification": {"text": TEXTS, "label": list("abcabcab")},
    "token_classification": {
        "tokens": [text.split() for text in TEXTS],
        "ner_tags": [["B-X" if i % 3 == 0 else "O" for i in range(len(text.split()))] for text in TEXTS],
    },
    "question_answering": {
        "context": [text + " again" for text in TEXTS],
        "question": ["what is it"] * 8,
        "answers": [{"text": [text.split()[0]], "answer_start": [0]} for text in TEXTS],
    },
    "multiple_choice": {
        "question": TEXTS,
        "choices": [text.split()[: 2 + i % 2] for i, text in enumerate(text + " or not" for text in TEXTS)],
        "label": [i % 2 for i in range(8)],
    },
    "causal_lm": {"text": [text + " and more" for text in TEXTS]},
    "masked_lm": {"text": [text + " and more" for text in TEXTS]},
    "seq2seq": {"source": TEXTS, "target": [" ".join(text.split()[::-1]) for text in TEXTS]},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "question_answering": {"max_length": 32, "stride": 8},
    "causal_lm": {"block_size": 32},
    "seq2seq": {"max_length": 32, "max_target_length": 24},
}


@dataclass
class Setting:
    """A task with a family's model and tokenizer, and one batch of its rows."""

    task: BaseTask
    model: Any
    tokenizer: Any
    rows: Dataset
    batch: dict[str, torch.Tensor]

    def answer(self, model: Any) -> torch.Tensor:
        """All floating-point outputs of the head, one after the other."""
        names = ("logits", "start_logits", "end_logits")
        with torch.no_grad():
            outputs = model.eval()(**self.task.model_inputs(self.batch))
        return torch.cat([outputs[name].flatten() for name in names if name in outputs])

    def train(self, model: Any, *, steps: int = 3, learning_rate: float = 1e-2) -> list[float]:
        """A few optimizer steps on the batch, the way the engines take them; gives the losses."""
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=learning_rate)
        objective = self.task.objective(build_loss(self.task.losses()[0]))
        items = self.task.count_items(self.batch)
        losses = []
        model.train()
        for _ in range(steps):
            loss, _ = objective(model, self.batch, items)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        return losses

    def predictions(self, model: Any, *, batch_size: int) -> list[Any]:
        """Predictions through inference, in batches of rows of like length."""
        here = Runtime(0, 1, 0, 1, torch.device("cpu"), 1)
        return inference.Model(self.task, model, self.tokenizer, here, batch_size).predictions(self.rows)


def ignore(line: str) -> None:
    """A `say` for tests that are not about what is said."""


def make(
    family: str,
    task_name: str,
    *,
    columns: dict[str, list[Any]] | None = None,
    say: Callable[[str], None] = ignore,
    **edits: Any,
) -> Setting:
    """The task on the family's model, drawn at random, with `ROWS` or other `columns` of data.

    Raises `InputError` where they don't go together.
    """
    task = find(task_name)(options_of(task_name)(**OPTIONS.get(task_name, {"max_length": 32})))
    checkpoint = resolve(f"scratch:{family}")
    config = load_config(checkpoint, overrides={}, edits={**FAMILIES[family], "vocab_size": 330, **edits})
    check_family(config, auto_class=task.auto_class)
    task.check_config(config)
    columns = columns or ROWS[task_name]
    raw = Dataset.from_dict({**columns, "row": list(range(1, 1 + len(next(iter(columns.values())))))})
    rows = task.prepare({"train": raw}, say)["train"]
    apply_overrides(config, task.config_overrides())
    tokenizer = task.processor(checkpoint, tokenizer="train", rows=rows, config=config, say=say)
    model = load(checkpoint, task, config, tokenizer, say)
    encoded = inference.encode(task, rows, tokenizer)
    drawn = drawing.apply(
        task.transform(tokenizer), [encoded[i] for i in range(len(encoded))],
        list(range(len(encoded))), seed=0, epoch=0,
    )  # fmt: skip
    return Setting(task, model, tokenizer, rows, task.collator(tokenizer)(drawn))


def load(checkpoint: Checkpoint, task: BaseTask, config: Any, tokenizer: Any, say: Callable[[str], None]) -> Any:
    """The task's model from a checkpoint, without dropout so that training can be compared."""
    model = load_model(
        checkpoint, auto_class=task.auto_class, config=config, tokenizer=tokenizer, head_init="default", dropout=0.0,
        activation=None, seed=1, say=say,
    )  # fmt: skip
    task.complete_model(model, say)
    return model


def again(folder: Path, setting: Setting) -> Any:
    """The same model from a folder that it was saved in, as training would load it."""
    return load(resolve(str(folder)), setting.task, copy.deepcopy(setting.model.config), setting.tokenizer, ignore)


def fits(family: str, task_name: str) -> bool:
    """Whether the family has a model for the task."""
    task = find(task_name)(options_of(task_name)(**OPTIONS.get(task_name, {"max_length": 32})))
    try:
        config = load_config(resolve(f"scratch:{family}"), overrides={}, edits=FAMILIES[family])
        check_family(config, auto_class=task.auto_class)
        task.check_config(config)
    except InputError:
        return False
    return True
