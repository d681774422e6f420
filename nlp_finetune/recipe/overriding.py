"""Layers of a recipe (file, `demo:`, command line), each set over the one before.

What is set is kept flat: one entry for every value, with the place that it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from nlp_finetune.recipe import describing, nodes
from nlp_finetune.recipe.finding import names_a_file
from nlp_finetune.recipe.keys import Keys, Path
from nlp_finetune.recipe.problems import Problem
from nlp_finetune.recipe.schema import OPTIONAL, TaskOptions

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Setting:
    """One field of the recipe that a layer sets: where, to what, and the place that says so."""

    path: Path
    node: yaml.Node
    origin: str


def settings(node: yaml.Node, origin: Callable[[int], str], keys: Keys) -> tuple[list[Setting], list[Problem]]:
    """Settings of a YAML mapping whose keys may be nested, dotted, or both.

    `origin` names the place of a line. A section that is null sets nothing, unless it is optional:
    null leaves that one out, and an empty mapping asks for its defaults.
    """
    found: list[Setting] = []
    problems: list[Problem] = []
    for path, line, item in _walk(node, (), keys):
        if len(path) == 1 and path[0] in keys.sections and not _is_whole(path, item):
            problems += _not_a_section(path, item, origin(line), keys)
        elif not path:
            problems.append(Problem("", origin(line), "must be a mapping of keys to values"))
        elif path in {setting.path for setting in found}:
            problems.append(Problem(".".join(path), origin(line), "set twice"))
        else:
            found.append(Setting(path, item, origin(line)))
    return found, problems


def _walk(node: yaml.Node, prefix: Path, keys: Keys) -> Iterator[tuple[Path, int, yaml.Node]]:
    is_section = not prefix or (len(prefix) == 1 and prefix[0] in keys.sections)
    if not (is_section and isinstance(node, yaml.MappingNode)) or _is_whole(prefix, node):
        yield prefix, nodes.line(node), node
        return
    seen: set[str] = set()
    for key, item in node.value:
        if key.value in seen or not isinstance(key, yaml.ScalarNode):
            continue  # `nodes.parse` has reported it
        seen.add(key.value)
        path = (*prefix, *str(key.value).split("."))
        for inner, line, leaf in _walk(item, path, keys):
            yield inner, line if inner != path else nodes.line(key), leaf


def _is_whole(path: Path, node: yaml.Node) -> bool:
    """Whether a value stands for a whole optional section: null for none, an empty mapping for its defaults."""
    is_empty = isinstance(node, yaml.MappingNode) and not node.value
    return len(path) == 1 and path[0] in OPTIONAL and (nodes.is_null(node) or is_empty)


def _not_a_section(path: Path, node: yaml.Node, where: str, keys: Keys) -> list[Problem]:
    if nodes.is_null(node):
        return []
    section = keys.sections[path[0]]
    if section is not None and "name" not in section:
        shape = f"with the keys {', '.join(section)}"
    else:
        shape = f"of keys; did you mean {path[0]}.name: {nodes.value(node)}?"
    return [Problem(path[0], where, f"is a section {shape}")]


def overrides(texts: Sequence[str], keys: Keys) -> tuple[list[Setting], list[Problem]]:
    """Settings of `key=value` texts. Of two for the same key the later one holds."""
    found: list[Setting] = []
    problems: list[Problem] = []
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        path = tuple(name.split("."))
        if not equals or not name:
            problems.append(Problem(text, COMMAND_LINE, "an override is written key=value"))
            continue
        node, broken = _override_node(path, value, keys)
        problems += [Problem(name, COMMAND_LINE, problem.message) for problem in broken]
        if node is None:
            continue
        more, wrong = settings(nodes.mapping_node(name, node), lambda _: COMMAND_LINE, keys)
        found += more
        problems += wrong
    return found, problems


def _override_node(path: Path, value: str, keys: Keys) -> tuple[yaml.Node | None, list[Problem]]:
    """Node of an override's value; for a field of text, the text as it stands (`data/*.csv`, `|`)."""
    known = keys.field(path) if keys.is_field(path) else None
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    if known is not None and describing.takes_text(known) and not quoted:
        is_list = describing.takes_list(known) and value.startswith("[")
        is_mapping = describing.takes_mapping(known) and value.startswith("{")
        if not is_list and not is_mapping:
            return nodes.text_node(value), []
    node, problems = nodes.parse(value, COMMAND_LINE)
    return (node or nodes.text_node(value), []) if not problems else (None, problems)


@dataclass
class Layers:
    """What is set so far: value and origin of every entry, and what was cleared by what."""

    keys: Keys
    values: dict[Path, Any] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)
    cleared: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, layer: Iterable[Setting], *, clears: bool) -> None:
        """Set a layer over what is there; with `clears`, first drop what it makes meaningless."""
        pairs = [(setting, self._value(setting)) for setting in layer]
        if clears:
            anew = {setting.path for setting, _ in pairs}
            for setting, value in pairs:
                self._clear(setting, value, anew)
        for setting, value in pairs:
            self.put(setting.path, value, setting.origin)

    def keep_demo(self, layer: Iterable[Setting]) -> None:
        """Keep what the `demo:` section would override, by dotted path, without applying it."""
        for setting in layer:
            self.put(("demo", ".".join(setting.path)), self._value(setting), setting.origin)

    def _value(self, setting: Setting) -> Any:
        known = self.keys.field(setting.path)
        if known is None or not self.keys.is_field(setting.path):
            return nodes.value(setting.node)
        is_mapping = isinstance(setting.node, yaml.MappingNode)
        value = nodes.value(setting.node, as_text=describing.takes_text(known) and not is_mapping)
        if value is None and describing.takes_mapping(known) and not describing.takes_null(known):
            return {}
        is_item = isinstance(value, str) and value not in describing.choices(known)
        return [value] if is_item and describing.takes_only_lists(known) else value

    def put(self, path: Path, value: Any, origin: str) -> None:
        """Set one value in place of whatever stood at, above or below its path."""
        for old in [p for p in self.values if p[: len(path)] == path or path[: len(p)] == p]:
            del self.values[old], self.origins[old]
        for leaf, item in _leaves(path, value):
            self.values[leaf], self.origins[leaf] = item, origin
            self.cleared.pop(leaf, None)

    def _clear(self, setting: Setting, value: Any, anew: set[Path]) -> None:
        stale = [p for p in self.values if p not in anew and self._makes_stale(setting, value, p)]
        for path in stale:
            del self.values[path], self.origins[path]
            self.cleared[path] = f"{'.'.join(setting.path)} ({setting.origin})"
        if stale:
            names = ", ".join(dict.fromkeys(".".join(path[:2]) for path in stale))
            self.notes.append(f"{'.'.join(setting.path)}={value} ({setting.origin}) cleared {names}")

    def _makes_stale(self, setting: Setting, value: Any, path: Path) -> bool:
        """Whether the value at `path` describes data or a checkpoint that `setting` replaces."""
        if setting.path == ("model", "checkpoint"):
            # Sizes describe a model made from scratch, and no checkpoint that takes its place.
            was_scratch = str(self.values.get(setting.path)).startswith("scratch:")
            sizes = was_scratch and not str(value).startswith("scratch:")
            return path[:2] in {("model", "revision"), ("model", "tokenizer")} or (
                sizes and path[:2] == ("model", "config")
            )
        splits = {("data", "train"), ("data", "validation"), ("data", "test")}
        if setting.path == ("data", "source") or (setting.path in splits and names_a_file(value)):
            columns = getattr(self.keys.options, "columns", TaskOptions.columns)
            return (path[0] == "data" and path != ("data", "limit")) or path[:2] in {("task", name) for name in columns}
        return False

    def origin(self, path: Path) -> str | None:
        """Where the value at `path` comes from, or that of the nearest entry; None for a default."""
        if path in self.origins:
            return self.origins[path]
        below = [origin for p, origin in self.origins.items() if p[: len(path)] == path]
        if below:
            return "; ".join(dict.fromkeys(below))
        return next((origin for p, origin in self.origins.items() if path[: len(p)] == p), None)

    def nested(self) -> dict[str, Any]:
        """All values as nested mappings."""
        tree: dict[str, Any] = {}
        for path, value in self.values.items():
            here = tree
            for name in path[:-1]:
                here = here.setdefault(name, {})
            here[path[-1]] = value
        return tree


def _leaves(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves((*path, key), item)
    else:
        yield path, value
