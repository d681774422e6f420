"""What a field takes, read from its annotation: for messages, for the reference, for reading text."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nlp_finetune.recipe.section import Words

_WORDS = {str: "text", bool: "true or false", dict: "a mapping", type(None): "null", Any: "anything"}


def takes(field: FieldInfo) -> str:
    """Words for the values that a field takes: `a whole number from 1, or 'auto'`."""
    parts = [_words(kind, rules) for kind, rules in alternatives(field)]
    parts = list(dict.fromkeys(parts))
    if len(parts) == 1:
        return parts[0]
    comma = "," if any(" and " in part for part in parts) else ""
    return f"{', '.join(parts[:-1])}{comma} or {parts[-1]}"


def alternatives(field: FieldInfo) -> list[tuple[Any, list[Any]]]:
    """The kinds of values that a field takes, each with its rules."""
    return list(_alternatives(field.annotation, list(field.metadata)))


def _alternatives(annotation: Any, rules: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        yield from _alternatives(inner, [*_flat(metadata), *rules])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _alternatives(part, rules)
    elif origin is Literal:
        for choice in get_args(annotation):
            yield choice, []
    else:
        yield annotation, rules


def _flat(metadata: list[Any]) -> list[Any]:
    return [rule for item in metadata for rule in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _words(kind: Any, rules: list[Any]) -> str:
    if kind is int:
        return "a whole number" + _bounds(rules)
    if kind is float:
        return "a number" + _bounds(rules)
    if (get_origin(kind) or kind) is list:
        items = get_args(kind) or (Any,)
        found = [(k, _words(k, [])) for k, _ in _alternatives(items[0], [])]
        # One of the words themselves has no plural.
        words = " or ".join(word if isinstance(k, str) else f"{word}s" for k, word in found)
        return f"a list of {_count(rules)}{words}"
    if get_origin(kind) is dict and get_args(kind)[1] is not Any:
        return "a mapping to " + " or ".join(_words(k, rules) for k, rules in _alternatives(get_args(kind)[1], []))
    if (keys := _keys(kind)) is not None:
        return f"a mapping of {', '.join(keys)}"
    if isinstance(kind, str):
        return f"'{kind}'"
    said = next((rule.words for rule in rules if isinstance(rule, Words)), None)
    if said is not None:
        return said
    pattern = next((rule.pattern for rule in rules if getattr(rule, "pattern", None)), None)
    if kind is str and pattern:
        return f"text matching {pattern}"
    return _WORDS.get(get_origin(kind) or kind, getattr(kind, "__name__", str(kind)))


def _bounds(rules: list[Any]) -> str:
    words = []
    for rule in rules:
        if isinstance(rule, annotated_types.Ge):
            words.append(f"at least {rule.ge}")
        elif isinstance(rule, annotated_types.Gt):
            words.append(f"above {rule.gt}")
        elif isinstance(rule, annotated_types.Le):
            words.append(f"at most {rule.le}")
        elif isinstance(rule, annotated_types.Lt):
            words.append(f"below {rule.lt}")
    return " " + " and ".join(words) if words else ""


def _count(rules: list[Any]) -> str:
    least = next((rule.min_length for rule in rules if isinstance(rule, annotated_types.MinLen)), 0)
    most = next((rule.max_length for rule in rules if isinstance(rule, annotated_types.MaxLen)), None)
    return "" if most is None else f"{least} to {most} "


def choices(field: FieldInfo) -> list[str]:
    """The words that a field takes literally."""
    return [kind for kind, _ in alternatives(field) if isinstance(kind, str)]


def takes_text(field: FieldInfo) -> bool:
    """Whether an unquoted value is text as it stands: the field takes text and no numbers or booleans."""
    kinds = {scalar for kind, _ in alternatives(field) for scalar in _scalars(kind)}
    return str in kinds and not kinds & {int, float, bool, Any}


def takes_list(field: FieldInfo) -> bool:
    """Whether a field takes a list."""
    return any((get_origin(kind) or kind) is list for kind, _ in alternatives(field))


def takes_only_lists(field: FieldInfo) -> bool:
    """Whether a text can stand in a field only as an item of a list."""
    return takes_list(field) and str not in {kind for kind, _ in alternatives(field)}


def takes_mapping(field: FieldInfo) -> bool:
    """Whether a field takes keys of its own."""
    return any((get_origin(kind) or kind) is dict or _keys(kind) is not None for kind, _ in alternatives(field))


def _keys(kind: Any) -> dict[str, FieldInfo] | None:
    """Keys of a mapping that the schema knows; None of other kinds."""
    is_section = isinstance(kind, type) and issubclass(kind, BaseModel)
    return dict(kind.model_fields) if is_section else None


def takes_null(field: FieldInfo) -> bool:
    """Whether null is a value of a field, and not a way to leave it empty."""
    return any(kind is type(None) for kind, _ in alternatives(field))


def _scalars(kind: Any) -> set[Any]:
    """Types of a value, or of the items where it is a list."""
    if isinstance(kind, str):
        return {str}
    if (get_origin(kind) or kind) is not list:
        return {get_origin(kind) or kind}
    items = get_args(kind) or (Any,)
    return {scalar for inner, _ in _alternatives(items[0], []) for scalar in _scalars(inner)}
