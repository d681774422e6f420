"""JSON Schema and reference page, made from the schema."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from nlp_finetune.recipe import json_schema, reference_markdown
from nlp_finetune.recipe.schema import SECTIONS, Recipe
from nlp_finetune.tasks import base

Tasks = dict[str, type[BaseModel]]
DOCS = Path(__file__).parents[2] / "docs" / "recipe.md"


def test_every_key_has_a_description() -> None:
    models: list[type[BaseModel]] = [Recipe, *SECTIONS.values()]
    without = [
        f"{model.__name__}.{key}"
        for model in models
        for key, field in model.model_fields.items()
        if not field.description or not field.description.endswith(".")
    ]
    assert without == []


def test_the_json_schema_offers_each_task_by_name(tasks: Tasks) -> None:
    schema = json_schema(list(tasks), tasks.__getitem__)
    (reference,) = schema["properties"]["task"]["oneOf"]
    options = schema["$defs"][reference["$ref"].removeprefix("#/$defs/")]
    assert options["properties"]["name"]["const"] == "sorting"
    assert "name" in options["required"]


def test_the_json_schema_keeps_tasks_with_the_same_class_name_apart(tasks: Tasks) -> None:
    class Sorting(BaseModel):
        name: str = "other"
        depth: int = 1

    both: Tasks = {**tasks, "other": Sorting}
    schema = json_schema(list(both), both.__getitem__)
    references = [option["$ref"].removeprefix("#/$defs/") for option in schema["properties"]["task"]["oneOf"]]
    names = [schema["$defs"][reference]["properties"]["name"]["const"] for reference in references]
    assert names == ["sorting", "other"]


def test_the_json_schema_refuses_unknown_keys_and_asks_for_no_name(tasks: Tasks) -> None:
    schema = json_schema(list(tasks), tasks.__getitem__)
    assert schema["additionalProperties"] is False
    assert "name" not in schema["required"]
    assert "model" in schema["required"]


def test_all_references_of_the_json_schema_lead_somewhere(tasks: Tasks) -> None:
    schema = json_schema(list(tasks), tasks.__getitem__)
    found: list[str] = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            found.extend(value for key, value in node.items() if key == "$ref")
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(schema)
    assert {reference.removeprefix("#/$defs/") for reference in found} <= set(schema["$defs"])
    assert len(found) >= 6


def test_the_reference_has_a_row_for_every_key(tasks: Tasks) -> None:
    page = reference_markdown(list(tasks), tasks.__getitem__)
    keys = [key for model in (*SECTIONS.values(), *tasks.values()) for key in model.model_fields]
    assert [key for key in keys if f"\n| `{key}` | " not in page] == []
    assert "| `batch_size` | a whole number at least 1 | `32` | Rows in one optimizer step" in page


def test_no_default_breaks_the_line_of_its_row() -> None:
    page = reference_markdown(base.names(), lambda name: base.find(name).Options)
    assert [line for line in page.splitlines() if line.startswith("|") and not line.endswith("|")] == []


def test_the_reference_page_in_docs_is_current() -> None:
    page = reference_markdown(base.names(), lambda name: base.find(name).Options)
    assert DOCS.read_text(encoding="utf-8") == page, "run: python run.py schema --markdown > docs/recipe.md"
