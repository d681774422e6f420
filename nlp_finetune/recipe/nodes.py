"""YAML as nodes, which know their line and their exact text, and YAML 1.2 scalars.

PyYAML reads YAML 1.1, where `1e-5` is a text and `no` is false. Here `1e-5` is a float, only `true` and
`false` are booleans, and dates stay text. There are no anchors and no tags: a recipe says what it means
where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from nlp_finetune.recipe.problems import Problem

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NO_MARK = yaml.Mark("", 0, 0, 0, None, 0)
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}


class _Loader(yaml.BaseLoader):
    """Builds nodes only; every scalar keeps its text."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors (&, *) are not part of a recipe", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        if node is not None and node.tag not in _PLAIN_TAGS:
            raise yaml.MarkedYAMLError(
                problem=f"tags ({node.tag}) are not part of a recipe", problem_mark=node.start_mark
            )
        return node


def parse(text: str, file: str) -> tuple[yaml.Node | None, list[Problem]]:
    """Root node of a YAML text (None where it is empty or broken) and what is wrong with it.

    `file` is named in the problems; a text without lines of its own (an override) passes its origin.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        return None, [Problem("", where, f"not valid YAML: {error.problem or error.context}")]
    except yaml.YAMLError as error:
        return None, [Problem("", file, f"not valid YAML: {str(error).splitlines()[0]}")]
    except RecursionError:
        return None, [Problem("", file, "nested too deeply")]
    return node, list(_bad_keys(node, (), file)) if node is not None else []


def _bad_keys(node: yaml.Node, path: tuple[str, ...], file: str) -> Iterator[Problem]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _bad_keys(item, path, file)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        where = f"{file}:{line(key)}"
        if not isinstance(key, yaml.ScalarNode):
            yield Problem(".".join(path), where, "a key must be a plain word")
            continue
        if key.value in first:
            yield Problem(".".join([*path, key.value]), where, f"set twice, first in line {first[key.value]}")
        first.setdefault(key.value, line(key))
        yield from _bad_keys(value, (*path, key.value), file)


def line(node: yaml.Node) -> int:
    """Line of a node in its file, from 1."""
    return int(node.start_mark.line) + 1


def text_node(text: str) -> yaml.ScalarNode:
    """Node of a text that is to be taken as it stands, unless it says null."""
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, _NO_MARK)


def mapping_node(key: str, item: yaml.Node) -> yaml.MappingNode:
    """Node of a mapping with one entry."""
    return yaml.MappingNode("tag:yaml.org,2002:map", [(text_node(key), item)], _NO_MARK)


def is_null(node: yaml.Node) -> bool:
    """Whether a node is an unquoted null."""
    return isinstance(node, yaml.ScalarNode) and not node.style and node.value in _NULL


def value(node: yaml.Node, *, as_text: bool = False) -> Any:
    """Plain Python value of a node; keys are always text.

    With `as_text`, unquoted scalars stay exactly as they are written (`0012`, `1e5`), null apart.
    """
    if isinstance(node, yaml.MappingNode):
        return {key.value: value(item, as_text=as_text) for key, item in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [value(item, as_text=as_text) for item in node.value]
    if is_null(node):
        return None
    text = str(node.value)
    return text if as_text or getattr(node, "style", None) else _scalar(text)


def _scalar(text: str) -> bool | int | float | str:
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


class _Dumper(yaml.SafeDumper):
    """Writes what both YAML 1.1 and 1.2 read back as the same values."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(list, _represent_list)
# A text that YAML 1.2 reads as a number must be quoted, even where YAML 1.1 does not.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+.0123456789"))


def dump(data: Any) -> str:
    """YAML text of plain data: keys in their order, lists on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100_000, default_flow_style=False)
