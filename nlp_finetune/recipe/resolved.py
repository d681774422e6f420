"""Resolved recipes: written down, compared, and their headline read without loading them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from nlp_finetune.recipe import nodes
from nlp_finetune.recipe.schema import Recipe

_NOT_COMPARED = {"output_dir", "demo", "description"}
_FREE = (
    "train.engine", "train.resume", "train.max_time", "train.save_every", "train.save_total", "hub.repo_id",
    "hub.private", "train.on_divergence", "train.max_rollbacks",
)  # fmt: skip
"""Keys that a run may go on with changed: the weights come out the same, or would not come out at all."""
_ABSENT = object()


def to_yaml(recipe: Recipe) -> str:
    """YAML text with every key of the recipe; loading it gives an equal recipe."""
    return nodes.dump(recipe.model_dump(mode="json"))


def differences(a: Recipe, b: Recipe) -> list[str]:
    """What differs between two recipes, one line a key: `optim.learning_rate: 2e-05 -> 5e-05`.

    Where a run is written, its description and its demo make no difference.
    """
    old, new = _compared(a), _compared(b)
    return [
        f"{path}: {_shown(old.get(path, _ABSENT))} -> {_shown(new.get(path, _ABSENT))}"
        for path in [*old, *(path for path in new if path not in old)]
        if old.get(path, _ABSENT) != new.get(path, _ABSENT)
    ]


def is_free(difference: str) -> bool:
    """Whether a run may go on though its recipe differs in this line of `differences`."""
    return difference.partition(":")[0] in _FREE


def fingerprint(recipe: Recipe) -> str:
    """Equal for recipes that train to the same weights from the same data."""
    kept = {path: value for path, value in _compared(recipe).items() if path not in _FREE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]


def _compared(recipe: Recipe) -> dict[str, Any]:
    return _flat(recipe.model_dump(mode="json", exclude=_NOT_COMPARED))


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        elif value != {}:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(value: object) -> str:
    if value is _ABSENT:
        return "(not set)"
    return "null" if value is None else str(value)


def headline(path: Path) -> tuple[str, str]:
    """Name and description of a recipe file, read without checking the rest of it."""
    node, _ = nodes.parse(path.read_text(encoding="utf-8"), str(path))
    values = nodes.value(node) if node is not None else None
    if not isinstance(values, dict):
        return path.stem, ""
    return path.stem, str(values.get("description") or "")
