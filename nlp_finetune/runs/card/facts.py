"""Everything a card is written from, as it stands in a run folder (or in a pushed run, which holds less)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlp_finetune.errors import InputError
from nlp_finetune.recipe import nodes
from nlp_finetune.runs.folder import TASK_FILE, RunFolder, read_json

SPLITS = ("test", "validation")
"""The order in which scores are told: those of rows that decided nothing come first."""
_PIPELINES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "ForImageClassification": "image-classification",
}
"""Ends of transformers' class names, and the Hub's name for what such a model does."""


@dataclass(frozen=True)
class Facts:
    """Contents of a run's files by their names; an absent file is an empty mapping.

    `config` is the model's configuration (of an adapter: its base's), `task` the content of task.json,
    `own_text` what the user wrote for the card.
    """

    recipe: dict[str, Any]
    metrics: dict[str, Any]
    config: dict[str, Any]
    task: dict[str, Any]
    check: dict[str, Any]
    details: dict[str, Any]
    environment: dict[str, Any]
    sources: dict[str, Any]
    decisions: dict[str, Any]
    history: list[dict[str, Any]]
    is_adapter: bool
    own_text: str

    def section(self, name: str) -> dict[str, Any]:
        """A section of the recipe."""
        return self.recipe.get(name) or {}

    @property
    def brings_code(self) -> bool:
        """Whether loading the model runs code that lies beside it."""
        return bool(self.section("model").get("trust_remote_code") or self.config.get("auto_map"))

    @property
    def is_timm(self) -> bool:
        """Whether the model is in timm's format."""
        return "pretrained_cfg" in self.config

    @property
    def pipeline(self) -> str | None:
        """The Hub's name for what the model does."""
        if self.is_timm:
            return "image-classification"
        if self.pooling:
            return "sentence-similarity"
        names = self.config.get("architectures") or [""]
        return next((tag for end, tag in _PIPELINES.items() if str(names[0]).endswith(end)), None)

    @property
    def pooling(self) -> str | None:
        """How a model whose results are vectors makes one of a text: `mean` or `cls`; None for all others."""
        return self.section("task").get("pooling")

    @property
    def problem(self) -> str:
        """Kind of labels of a classification model, as transformers names it; empty where it has none."""
        return str(self.config.get("problem_type") or "")

    @property
    def labels(self) -> list[str]:
        """Names of the classes in the order of the model's outputs."""
        names = self.config.get("id2label") or self.config.get("label_names") or {}
        if isinstance(names, list):
            return [str(name) for name in names]
        return [str(names[key]) for key in sorted(names, key=lambda key: int(key))]

    @property
    def base(self) -> dict[str, Any]:
        """What was fine-tuned: `kind`, `given`, and where known `revision`, `licence`, `language`."""
        found: dict[str, Any] = self.sources.get("base") or {}
        return found or {"kind": "unknown", "given": str(self.section("model").get("checkpoint") or "")}

    @property
    def data(self) -> dict[str, Any]:
        """What was trained on: `kind`, `given`, and where known `revision`, `licence`, `language`, `files`."""
        found: dict[str, Any] = self.sources.get("data") or {}
        return found or {"kind": "unknown", "given": str(self.section("data").get("source") or "")}

    @property
    def metric(self) -> str | None:
        """The metric that chose the checkpoint."""
        return (self.metrics.get("best") or {}).get("metric")

    @property
    def split(self) -> str | None:
        """The split whose scores are told first: test rows where there are any."""
        return next((split for split in SPLITS if self.metrics.get(split)), None)

    def scores(self, split: str) -> Iterator[tuple[str, float]]:
        """Names and values of what was measured on a split, the main metric first; no loss, no NaN."""
        found = self.metrics.get(split) or {}
        names = sorted(found, key=lambda name: name != self.metric)
        for name in names:
            value = found[name]
            if isinstance(value, float) and math.isfinite(value) and name != "loss":
                yield name, value


def read(folder: RunFolder, weights: Path) -> Facts:
    """The facts of a run whose model's files are in `weights`: `model/`, `adapter/`, or a pushed run's root."""
    adapted = weights / "base_config" / "config.json"
    task = read_json(weights / TASK_FILE) or read_json(folder.model / TASK_FILE)
    own = folder.own_card
    return Facts(
        recipe=read_recipe(folder.recipe),
        metrics=read_json(folder.metrics),
        config=read_json(weights / "config.json") or read_json(adapted),
        task=task,
        check=read_json(folder.check),
        details=read_json(folder.details),
        environment=read_json(folder.environment),
        sources=read_json(folder.sources) or _sources_of_adapter(read_json(folder.path / "adapter_config.json")),
        decisions=read_json(folder.decisions),
        history=_lines(folder.history),
        is_adapter=adapted.is_file(),
        own_text=own.read_text(encoding="utf-8") if own.is_file() else "",
    )


def _lines(file: Path) -> list[dict[str, Any]]:
    """Objects of a file with one a line; a line that was cut short is left out."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [one for one in found if isinstance(one, dict)]


def _sources_of_adapter(config: dict[str, Any]) -> dict[str, Any]:
    """What a pushed adapter says of its base."""
    if not config.get("revision"):
        return {}
    return {"base": {"kind": "hub", "given": config["base_model_name_or_path"], "revision": config["revision"]}}


def read_recipe(file: Path) -> dict[str, Any]:
    """A saved recipe as it stands; raises `InputError` if it is damaged."""
    root, problems = nodes.parse(file.read_text(encoding="utf-8"), "recipe.yaml")
    if root is None or problems:
        raise InputError(f"recipe.yaml is damaged ({problems[0].message if problems else 'it is empty'}).")
    found: dict[str, Any] = nodes.value(root)
    return found
