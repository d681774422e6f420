"""The verbs about recipes, `list`, `show` and `schema`, and the arguments of every verb that takes one."""

from __future__ import annotations

import argparse
import json
import sys

from nlp_finetune.errors import EXIT_DONE
from nlp_finetune.recipe import (
    Loaded,
    headline,
    json_schema,
    load,
    reference_markdown,
    shipped,
    to_yaml,
)
from nlp_finetune.tasks import base as tasks


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--recipe`, `--demo` and `key=value`, which `load_recipe` reads."""
    parser.add_argument(
        "--recipe", required=True, metavar="R", help="a shipped recipe's name, a YAML file, or a run's folder"
    )
    parser.add_argument("--demo", action="store_true", help="apply the recipe's demo section: no network needed")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values for this run, by dotted path")


def load_recipe(arguments: argparse.Namespace) -> Loaded:
    """Load the recipe that the arguments name. Raises `InputError` with everything that is wrong."""
    return load(
        arguments.recipe,
        overrides=arguments.overrides,
        demo=arguments.demo,
        task_options=_task_options,
        task_names=tasks.names(),
    )


def _task_options(name: str) -> type[tasks.TaskOptions]:
    return tasks.find(name).Options


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `list`."""
    _add_json(parser)


def list_recipes(arguments: argparse.Namespace) -> int:
    """Print the shipped recipes with a line each."""
    found = [headline(path) for path in shipped().values()]
    if arguments.json:
        print(_json([{"name": name, "description": description} for name, description in found]))
    else:
        width = max((len(name) for name, _ in found), default=0)
        print("\n".join(f"{name:<{width}}  {description}" for name, description in found))
    return EXIT_DONE


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `show`."""
    add_recipe_arguments(parser)
    parser.add_argument("--origins", action="store_true", help="say where every value comes from")
    _add_json(parser)


def show(arguments: argparse.Namespace) -> int:
    """Print a resolved recipe, as YAML, as a list of values and their origins, or as JSON."""
    loaded = load_recipe(arguments)
    values = loaded.recipe.model_dump(mode="json")
    if arguments.json:
        print(_json({"recipe": values, "origins": loaded.origins, "notes": loaded.notes}))
    elif arguments.origins:
        print(_origins(values, loaded))
    else:
        if not arguments.quiet:
            print("".join(f"{note}\n" for note in loaded.notes), end="", file=sys.stderr)
        print(to_yaml(loaded.recipe), end="")
    return EXIT_DONE


def _origins(values: dict[str, object], loaded: Loaded) -> str:
    rows = []
    for path, origin in loaded.origins.items():
        value: object = values
        for key in path.split("."):
            value = value[key] if isinstance(value, dict) else None
        rows.append((f"{path}: {json.dumps(value, ensure_ascii=False)}", origin))
    # One long value (the demo section) must not push all origins off the screen.
    width = max(len(text) for text, _ in rows if len(text) <= 60)
    return "\n".join([*(f"{text:<{width}}  # {origin}" for text, origin in rows), *loaded.notes])


def add_schema_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `schema`."""
    parser.add_argument("--markdown", action="store_true", help="print the recipe reference for people instead")


def schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of a recipe, or the recipe reference."""
    if arguments.markdown:
        print(reference_markdown(tasks.names(), _task_options), end="")
    else:
        print(_json(json_schema(tasks.names(), _task_options)))
    return EXIT_DONE


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _json(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)
