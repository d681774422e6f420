"""What a run folder says about a run, whole or not: a page is made of whatever is there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_finetune.runs.folder import RunFolder


@dataclass(frozen=True)
class RunData:
    """The small files of a run; empty where one is missing or cannot be read."""

    name: str
    folder: RunFolder
    recipe: dict[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    check: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_measured(self) -> bool:
        """Whether the saved weights have been measured."""
        return "best" in self.metrics

    @property
    def split(self) -> str:
        """The split whose scores count: test where there is one."""
        return "test" if "test" in self.metrics else "validation"

    @property
    def metric(self) -> str | None:
        """Name of the metric that picks the best checkpoint, once known."""
        found: str | None = self.metrics.get("best", {}).get("metric") or self.progress.get("metric")
        return found

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Lines of the history that are evaluations."""
        return [line for line in self.history if "validation" in line]

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and validation score of the best evaluation so far."""
        name = self.metric
        scored = [(line["step"], line["validation"].get(name)) for line in self.evaluations]
        scored = [(step, value) for step, value in scored if value is not None]
        step = self.metrics.get("best", {}).get("step", self.progress.get("best_step"))
        return next((pair for pair in scored if pair[0] == step), None)


def read(folder: RunFolder, *, name: str | None = None) -> RunData:
    """Read what there is; a file that is missing, or half written, counts as empty."""
    import yaml

    recipe_text = _text(folder.recipe)
    try:
        recipe = yaml.safe_load(recipe_text) if recipe_text else {}
    except yaml.YAMLError:
        recipe = {}
    recipe = recipe if isinstance(recipe, dict) else {}
    return RunData(
        name=name or folder.path.resolve().name,
        folder=folder,
        recipe=recipe,
        recipe_text=recipe_text,
        metrics=_json(folder.metrics),
        details=_json(folder.details),
        progress=_json(folder.progress),
        check=_json(folder.check),
        environment=_json(folder.environment),
        status=_json(folder.status),
        history=_lines(folder.history),
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(file))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _lines(file: Path) -> list[dict[str, Any]]:
    found = []
    for line in _text(file).splitlines():
        try:
            content = json.loads(line)
        except ValueError:  # the last line of a process that was killed
            continue
        if isinstance(content, dict) and isinstance(content.get("step"), int):
            found.append(content)
    return found
