"""The schema for editors (JSON Schema) and for people (a Markdown page), both made from the classes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import models_json_schema

from nlp_finetune.recipe import describing
from nlp_finetune.recipe.loading import OptionsOf
from nlp_finetune.recipe.schema import SECTIONS, Recipe

_INTRODUCTION = """\
# Recipe reference

Made from the schema by `run.py schema --markdown`; the same for editors is `run.py schema`.

Order of precedence: default < recipe < `demo:` (with `--demo`) < `key=value` on the command line.
Unknown keys are errors. `run.py show --recipe R --origins` says where every value comes from.

An override of `data.source`, or of `data.train`, `data.validation` or `data.test` with a file, first clears
the rest of `data` (`data.limit` apart), `task.text` and `task.label`: they described other data. An override
of `model.checkpoint` clears `model.revision` and `model.tokenizer`, and the sizes in `model.config` where a
`scratch:` model is replaced by a checkpoint. Where a list of texts is taken, one text is a list of one.
"""


def json_schema(task_names: Sequence[str], task_options: OptionsOf) -> dict[str, Any]:
    """JSON Schema of a recipe file; `task` is any one of the tasks' options."""
    tasks = {name: task_options(name) for name in task_names}
    references, document = models_json_schema(
        [(Recipe, "validation"), *((options, "validation") for options in tasks.values())]
    )
    definitions = document["$defs"]

    def definition(model: type[BaseModel]) -> dict[str, Any]:
        name: str = references[model, "validation"]["$ref"].rpartition("/")[2]
        found: dict[str, Any] = definitions[name]
        return found

    for name, options in tasks.items():
        schema = definition(options)
        schema["properties"]["name"] = {"const": name, "description": "The task."}
        schema["required"] = sorted({*schema.get("required", []), "name"})
    recipe = dict(definition(Recipe))
    definitions.pop(references[Recipe, "validation"]["$ref"].rpartition("/")[2])
    recipe["properties"]["task"] = {
        "description": Recipe.model_fields["task"].description,
        "oneOf": [references[options, "validation"] for options in tasks.values()],
    }
    # A file without a name takes its own.
    recipe["required"] = [key for key in recipe["required"] if key != "name"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **recipe, "$defs": definitions}


def reference_markdown(task_names: Sequence[str], task_options: OptionsOf) -> str:
    """Markdown page with one table a section: key, what it takes, default, meaning."""
    sections: dict[str, type[BaseModel]] = {}
    for name in task_names:
        sections[f"task: {name}"] = task_options(name)
    sections |= SECTIONS
    top = [(key, field) for key, field in Recipe.model_fields.items() if key not in SECTIONS and key != "task"]
    parts = [_INTRODUCTION, "## Top level\n\n" + _table(top)]
    for title, model in sections.items():
        meaning = (model.__doc__ or "").strip().splitlines()
        heading = f"## {title}\n\n{meaning[0] if meaning else ''}".rstrip()
        parts.append(heading + "\n\n" + _table(model.model_fields.items()))
    return "\n".join(parts)


def _table(fields: Iterable[tuple[str, FieldInfo]]) -> str:
    rows = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for key, field in fields:
        meaning = field.description or ("The task." if key == "name" else "")
        cells = [f"`{key}`", describing.takes(field), _default(key, field), meaning]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _default(key: str, field: FieldInfo) -> str:
    if key == "name" and field.is_required():
        return "the file's name"
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    plain = isinstance(value, str) and value.strip()
    return f"`{value if plain else json.dumps(value)}`"
