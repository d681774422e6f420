"""Load a recipe: default < recipe < `demo:` < `key=value`, checked whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as File

import yaml
from pydantic import BaseModel

from nlp_finetune.errors import InputError
from nlp_finetune.recipe import nodes
from nlp_finetune.recipe.checking import validate
from nlp_finetune.recipe.finding import find, shown
from nlp_finetune.recipe.keys import Keys
from nlp_finetune.recipe.overriding import Layers, Setting, overrides, settings
from nlp_finetune.recipe.problems import Problem, did_you_mean, refusal
from nlp_finetune.recipe.schema import SECTIONS, Recipe

OptionsOf = Callable[[str], type[BaseModel]]
"""Gives the options class of the task of that name."""


@dataclass(frozen=True)
class Loaded:
    """A recipe with everything resolved, and how it came about.

    `origins` says for every dotted path where its value comes from; `notes` say, a line each, what an
    override cleared.
    """

    recipe: Recipe
    origins: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class _Layer:
    settings: list[Setting]
    problems: list[Problem]


def load(
    reference: str,
    *,
    overrides: Sequence[str] = (),
    demo: bool = False,
    task_options: OptionsOf,
    task_names: Sequence[str],
) -> Loaded:
    """Load the recipe called `reference`: a shipped name, a YAML file or a run folder.

    `task_options` gives the options class of a task, one of `task_names`. Raises `InputError` that
    lists everything wrong in the file, its `demo:` section and the overrides.
    """
    path = find(reference)
    file = shown(path)
    root, problems = nodes.parse(_read(path, file), file)
    if root is None:
        raise refusal(f"recipe {reference}", problems or [Problem("", file, "the file is empty")])
    # A first, blind reading finds the task, whose options say how the rest is to be read.
    name = _task_name(_read_layers(root, file, overrides, Keys(None)), demo)
    options = task_options(name) if name is not None and name in task_names else None
    keys = Keys(options)
    layers = _read_layers(root, file, overrides, keys)
    problems += [problem for layer in layers for problem in layer.problems]
    if demo and not layers[1].settings and not problems:
        problems.append(Problem("demo", file, "there is no such section, so --demo has nothing to apply"))
    meant = _drop_unknown(layers, keys, problems)
    state = _stacked(layers, keys, path, demo)
    if options is None:
        problems.append(_no_task(name, task_names, state.origin(("task", "name")) or file))
    recipe, wrong = validate(state, file, meant)
    if recipe is None or problems:
        raise refusal(f"recipe {reference}", problems + wrong)
    return Loaded(recipe, _origins(recipe, state), state.notes)


def _read(path: File, file: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {file}: cannot be read as UTF-8 text ({error})") from error


def _read_layers(root: yaml.Node, file: str, texts: Sequence[str], keys: Keys) -> list[_Layer]:
    """Settings and problems of the file, of its `demo:` section, and of the command line."""
    own, problems = settings(root, lambda line: f"{file}:{line}", keys)
    demo_node = next((s.node for s in own if s.path == ("demo",)), None)
    if demo_node is None or nodes.is_null(demo_node):
        demo = _Layer([], [])
    else:
        demo = _Layer(*settings(demo_node, lambda line: f"{file}:{line}, demo", keys))
    command_line, wrong = overrides(texts, keys)
    return [
        _Layer([s for s in own if s.path != ("demo",)], problems),
        demo,
        _Layer(command_line, wrong),
    ]


def _task_name(layers: list[_Layer], demo: bool) -> str | None:
    own, demo_layer, command_line = layers
    in_force = [*own.settings, *(demo_layer.settings if demo else []), *command_line.settings]
    named = [s.node for s in in_force if s.path == ("task", "name")]
    value = nodes.value(named[-1], as_text=True) if named else None
    return value if isinstance(value, str) else None


def _drop_unknown(layers: list[_Layer], keys: Keys, problems: list[Problem]) -> set[str]:
    """Move settings of unknown keys to the problems; return the paths they were meant for."""
    meant = set()
    for number, layer in enumerate(layers):
        for setting in list(layer.settings):
            if number > 0 and setting.path[0] == "demo":
                message, likely = "is changed in the recipe's file, not overridden", None
            elif keys.is_known(setting.path):
                continue
            else:
                message, likely = keys.wrong(setting.path)
            layer.settings.remove(setting)
            problems.append(Problem(".".join(setting.path), setting.origin, message))
            if likely:
                meant.add(likely)
    return meant


def _stacked(layers: list[_Layer], keys: Keys, path: File, demo: bool) -> Layers:
    own, demo_layer, command_line = layers
    state = Layers(keys)
    stem = path.parent.name if path.name == "recipe.yaml" else path.stem
    state.put(("name",), re.sub(r"[^\w.-]+", "_", stem).lstrip(".-") or "recipe", "file name")
    state.add(own.settings, clears=False)
    state.keep_demo(demo_layer.settings)
    if demo:
        state.add(demo_layer.settings, clears=True)
    state.add(command_line.settings, clears=True)
    return state


def _no_task(name: str | None, task_names: Sequence[str], where: str) -> Problem:
    known = ", ".join(task_names)
    if name is None:
        return Problem("task.name", where, f"required, and not set; one of {known}")
    near = did_you_mean(name, task_names)
    return Problem("task.name", where, f"no task is called '{name}'; tasks: {known}{near}")


def _origins(recipe: Recipe, state: Layers) -> dict[str, str]:
    found: dict[str, str] = {}
    sections: dict[str, type[BaseModel]] = {"task": type(recipe.task), **SECTIONS}
    for top in Recipe.model_fields:
        is_section = top in sections and getattr(recipe, top) is not None
        keys = [(top, key) for key in sections[top].model_fields] if is_section else [(top,)]
        for path in keys:
            cause = next((by for p, by in state.cleared.items() if p[: len(path)] == path), None)
            default = f"default; cleared by {cause}" if cause else "default"
            found[".".join(path)] = state.origin(path) or default
    return found
