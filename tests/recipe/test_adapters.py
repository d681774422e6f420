"""The section `lora`: absent, created by an override, left out again, and keys that a method does not use."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nlp_finetune.errors import InputError
from nlp_finetune.recipe import Loaded, Lora, to_yaml

Read = Callable[..., Loaded]


@pytest.mark.parametrize("text", ["", "lora:\n", "lora: null\n"])
def test_a_recipe_has_no_adapters_unless_it_asks_for_them(text: str, read: Read, minimal: str) -> None:
    assert read(minimal + text).recipe.lora is None


def test_an_override_creates_the_section(read: Read, minimal: str) -> None:
    assert read(minimal, "lora.rank=4").recipe.lora == Lora(rank=4)


@pytest.mark.parametrize("text", ["lora: {}\n", "demo: {lora: {}}\n"])
def test_an_empty_mapping_asks_for_the_defaults(text: str, read: Read, minimal: str) -> None:
    assert read(minimal + text, demo="demo" in text).recipe.lora == Lora()


def test_an_override_with_null_leaves_adapters_out(read: Read, minimal: str) -> None:
    loaded = read(minimal + "lora: {rank: 4, alpha: 8}\n", "lora=null")
    assert loaded.recipe.lora is None
    assert loaded.origins["lora"] == "command line"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("lora.targets=auto", "auto"),
        ("lora.targets=query", ["query"]),
        ("lora.targets=[query, attention.output.dense]", ["query", "attention.output.dense"]),
    ],
)
def test_targets_are_auto_or_a_list(override: str, value: object, read: Read, minimal: str) -> None:
    lora = read(minimal, override).recipe.lora
    assert lora is not None
    assert lora.targets == value


def test_a_rank_pattern_may_have_dots(read: Read, minimal: str) -> None:
    lora = read(minimal, "lora.rank_pattern={layer.0.output.dense: 16}").recipe.lora
    assert lora is not None
    assert lora.rank_pattern == {"layer.0.output.dense": 16}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lora.method=lorra"], "\"lorra\" is not valid; it takes 'lora', 'dora'"),
        (
            ["lora.method=ia3", "lora.rank=4"],
            "lora.rank (command line): ia3 does not use it; it needs lora.method: lora",
        ),
        (["lora.method=ia3", "lora.dropout=0.2"], "lora.dropout (command line): ia3 does not use it"),
        (["lora.method=vera", "lora.alpha=4"], "lora.alpha (command line): vera does not use it"),
        (["lora.method=vera", "lora.rank_pattern={query: 4}"], "vera does not use it"),
        (["lora.rank=0"], "0 is not valid; it takes a whole number at least 1"),
        (["lora.rnk=4"], "did you mean 'rank'?"),
        (["lora_r=4"], "lora_r belongs to lora, where it is called rank"),
        (["lora=4"], "is a section with the keys method, rank"),
    ],
)
def test_what_is_wrong_is_said(overrides: list[str], message: str, refusal: Callable[..., str], minimal: str) -> None:
    assert message in refusal(minimal, *overrides)


def test_a_resolved_recipe_gives_the_same_adapters_again(read: Read, minimal: str) -> None:
    first = read(minimal, "lora.method=rslora", "lora.rank_pattern={query: 4}", "lora.targets=[query, value]")
    assert read(to_yaml(first.recipe)).recipe == first.recipe


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("prefix", "prefix puts learned tokens before the input. They can't be worked into the weights"),
        ("prompt-tuning", "prompt-tuning puts learned tokens before the input"),
        ("adalora", "peft has adalora, this package does not offer it"),
    ],
)
def test_other_methods_are_refused_by_name_and_with_the_reason(
    method: str, reason: str, read: Read, minimal: str
) -> None:
    with pytest.raises(InputError, match=reason):
        read(minimal, f"lora.method={method}")
