"""Runs of a second or two in processes of their own, watched and disturbed from outside."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.command_line import Done, Started, start_all
from tests.tiny import TINY

STEPS = ("train.max_steps=40", "train.eval_every=10", "train.log_every=1", "model.dropout=0.1")
SENTENCES = (*TINY, *STEPS, "train.micro_batch_size=4", "train.eval_batch_size=2")
"""Dropout, accumulation over four micro batches, buckets by length."""
LORA = (*SENTENCES, "lora.rank=4", "lora.dropout=0.1")
MASKED = (
    "--recipe", "masked_lm", "--demo", "model.checkpoint=scratch:bert", "model.tokenizer=train", *STEPS,
    "model.config={hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64,"
    " vocab_size: 600, max_position_embeddings: 64}", "train.batch_size=16", "train.threads=1",
)  # fmt: skip
"""Rows that are masked anew in each epoch."""
GRADUAL = (*SENTENCES, "freeze.gradual=8")
"""Another part of the model thaws every 8 steps."""
AVERAGED = (*SENTENCES, "average.name=ema", "average.decay=0.9")
"""What is validated and saved is a moving average of the weights."""
IMAGES = (
    "--recipe", "image_cls", "--demo", *STEPS[:-1], "model.config={embedding_size: 8, hidden_sizes: [8, 16],"
    " depths: [1, 1], layer_type: basic}", "task.size=16", "train.batch_size=8", "train.micro_batch_size=4",
    "data.limit=200", "train.threads=1", "train.workers=0",
)  # fmt: skip
"""A small ResNet on digits that are cropped anew in each epoch."""
AUGMENTED = (
    *SENTENCES, "augment.delete=0.1", "augment.swap=0.1", "augment.typo=0.1", "augment.probability=0.8",
    "regularize.mixup=0.4", "data.sampler=balanced",
)  # fmt: skip
"""Texts that are changed and tokenized anew in each epoch, mixed with others, and drawn by their classes."""


def start(folder: Path, *arguments: str, processes: int = 1) -> list[Started]:
    """Start a run in `folder/run`, on one process or several connected ones."""
    return start_all(processes, *arguments, "output_dir=run", cwd=folder)


def wait(started: list[Started], timeout_s: float = 240) -> list[Done]:
    """Wait for all processes of a run."""
    return [one.wait(timeout_s) for one in started]


def finish(folder: Path, *arguments: str, processes: int = 1) -> str:
    """Start a run, or go on with it, to its end; gives what the main process printed to stderr."""
    ended = wait(start(folder, *arguments, processes=processes))
    assert [one.code for one in ended] == [0] * processes, ended[0].stderr[-3000:]
    return ended[0].stderr


def stop(folder: Path, *arguments: str, lines: int, number: int = signal.SIGTERM, processes: int = 1) -> list[Done]:
    """Start a run, or go on with it, and send it a signal when it trains and its history has so many lines."""
    started = start(folder, *arguments, processes=processes)
    started[0].until(lambda: is_training(folder / "run") and len(history(folder / "run")) >= lines)
    for one in started:
        one.send(number)
    return wait(started, timeout_s=60)


def history(run: Path) -> list[dict[str, Any]]:
    """What a run has written down so far."""
    file = run / "history.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def is_training(run: Path) -> bool:
    """Whether preparation is over; other states are what an earlier start has left."""
    return (run / "status.json").is_file() and status(run)["state"] == "running"


def status(run: Path) -> dict[str, Any]:
    """Content of status.json."""
    content: dict[str, Any] = json.loads((run / "status.json").read_text())
    return content


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Weights of a finished run."""
    return load_file(run / "model" / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
