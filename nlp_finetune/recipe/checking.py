"""From set values to a `Recipe`, or to everything that is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from nlp_finetune.recipe import describing
from nlp_finetune.recipe.keys import Path
from nlp_finetune.recipe.overriding import Layers
from nlp_finetune.recipe.problems import Problem, did_you_mean
from nlp_finetune.recipe.schema import OPTIONAL, SECTIONS, Recipe


class _NoTask(BaseModel):
    """Stands in for options that cannot be validated, while the other sections are."""


def validate(layers: Layers, file: str, meant: set[str]) -> tuple[Recipe | None, list[Problem]]:
    """Validate all sections and the task's options; the recipe is None where there are problems.

    `meant` are paths that a misspelt key was meant for: that they are missing is not said again.
    """
    tree = layers.nested()
    for name in SECTIONS.keys() - OPTIONAL:
        tree.setdefault(name, {})
    found: list[tuple[Path, str]] = []
    options = layers.keys.options
    task: BaseModel = _NoTask()
    if options is not None:
        try:
            task = options.model_validate(tree.get("task", {}), strict=True)
        except ValidationError as error:
            found += _explained(error, layers, ("task",))
    try:
        recipe = Recipe.model_validate({**tree, "task": task})
    except ValidationError as error:
        found += _explained(error, layers, ())
    problems = [
        Problem(".".join(path), _where(path, layers) or file, message)
        for path, message in found
        if ".".join(path) not in meant
    ]
    return (None if found else recipe), problems


def _where(path: Path, layers: Layers) -> str | None:
    """Place of a value; of a missing one, what cleared it or where its section begins."""
    if origin := layers.origin(path):
        return origin
    if path in layers.cleared:
        return f"cleared by {layers.cleared[path]}"
    return next((origin for p, origin in layers.origins.items() if p[0] == path[0]), None)


def _explained(error: ValidationError, layers: Layers, prefix: Path) -> list[tuple[Path, str]]:
    """Field and message of every mistake; one message for a field, however many types it could have."""
    found: dict[tuple[Path, str], None] = {}
    for detail in error.errors(include_url=False):
        path = (*prefix, *(str(part) for part in detail["loc"]))[:2]
        context: Mapping[str, Any] = detail.get("ctx", {})
        if detail["type"] == "conflict":
            for key, message in context["conflicts"]:
                found[(*path, *key.split(".")), message] = None
        elif detail["type"] == "missing":
            found[path, _missing(path, layers)] = None
        elif detail["type"] in ("value_error", "assertion_error"):
            found[path, str(context["error"])] = None
        else:
            found[path[: _depth(path, layers)], _invalid(path, layers)] = None
    return list(found)


def _depth(path: Path, layers: Layers) -> int:
    return 2 if path[0] in layers.keys.sections else 1


def _missing(path: Path, layers: Layers) -> str:
    field = layers.keys.field(path)
    return "required, and not set" + (f": {describing.takes(field)}" if field else "")


def _invalid(path: Path, layers: Layers) -> str:
    path = path[: _depth(path, layers)]
    field = layers.keys.field(path)
    value: Any = layers.nested()
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    shown = json.dumps(value, ensure_ascii=False, default=str)
    if value == "":
        return "is empty; null leaves it unset" if field and not field.is_required() else "is empty"
    if field is None:
        return f"{shown} is not valid"
    near = did_you_mean(value, describing.choices(field)) if isinstance(value, str) else ""
    return f"{shown} is not valid; it takes {describing.takes(field)}{near}"
