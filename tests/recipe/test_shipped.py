"""The shipped recipes: each loads, as it stands and as a demo."""

from __future__ import annotations

import pytest

from nlp_finetune.recipe import Loaded, headline, load, shipped
from nlp_finetune.tasks import base

NAMES = [
    "causal_lm",
    "embedding",
    "image_cls",
    "masked_lm",
    "multiple_choice",
    "qa",
    "seq2seq",
    "text_cls",
    "text_cls_ernie",
    "text_multilabel",
    "text_pair",
    "text_regression",
    "token_cls",
    "token_cls_zh",
]


def loaded(name: str, *, demo: bool) -> Loaded:
    return load(name, demo=demo, task_options=lambda task: base.find(task).Options, task_names=base.names())


def test_all_recipes_are_found() -> None:
    assert list(shipped()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_called_as_its_file_and_described_in_a_line(name: str) -> None:
    recipe = loaded(name, demo=False).recipe
    assert recipe.name == name
    assert headline(shipped()[name]) == (name, recipe.description)
    assert recipe.description
    assert "\n" not in recipe.description


@pytest.mark.parametrize("name", NAMES)
def test_a_demo_needs_no_network(name: str) -> None:
    recipe = loaded(name, demo=True).recipe
    assert recipe.model.checkpoint.startswith(("pkg:", "scratch:"))
    assert (recipe.model.tokenizer or "train") == "train"
    assert (recipe.data.source or "").startswith("demo:")
    assert (recipe.model.revision, recipe.data.config, recipe.data.revision) == (None, None, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_header_gives_the_command_and_what_to_expect(name: str) -> None:
    text = shipped()[name].read_text(encoding="utf-8")
    header = text[: text.index(f"name: {name}")]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"accelerate launch run.py --recipe {name}\n" in header
    assert f"accelerate launch run.py --recipe {name} --demo" in header
    assert "# Expected: " in header
