"""Resolved recipes: written, read back and compared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml
from pydantic import ValidationError

from nlp_finetune.recipe import Loaded, differences, fingerprint, is_free, to_yaml

Read = Callable[..., Loaded]


def test_a_written_recipe_is_read_back_equal(read: Read, minimal: str) -> None:
    text = minimal + "demo: {data.revision: 0012, model.config: {a: {b: 1e-5}}, task.text: [x]}\n"
    recipe = read(text, "model.config.id2label={0: no, 1: '1e5'}", "train.extra.x=1e-7", "data.delimiter=tab").recipe
    assert read(to_yaml(recipe)).recipe == recipe


def test_a_written_recipe_holds_every_key_in_order(read: Read, minimal: str) -> None:
    written = yaml.safe_load(to_yaml(read(minimal).recipe))
    assert list(written)[:4] == ["name", "description", "task", "model"]
    assert written["optim"]["learning_rate"] == 2e-5
    assert written["train"]["patience"] is None
    assert written["task"]["max_length"] == 128


def test_equal_recipes_have_no_differences(read: Read, minimal: str) -> None:
    assert differences(read(minimal).recipe, read(minimal + "train: {seed: 13}\n").recipe) == []


def test_differences_name_key_and_both_values(read: Read, minimal: str) -> None:
    other = read(minimal, "optim.learning_rate=5e-5", "model.config.hidden_size=64", "train.patience=2")
    assert differences(read(minimal).recipe, other.recipe) == [
        "optim.learning_rate: 2e-05 -> 5e-05",
        "train.patience: null -> 2",
        "model.config.hidden_size: (not set) -> 64",
    ]


def test_output_folder_description_and_demo_make_no_difference(read: Read, minimal: str) -> None:
    other = read(minimal + "demo: {train.seed: 1}\n", "output_dir=x", "description=y")
    assert differences(read(minimal).recipe, other.recipe) == []


def test_a_recipe_cannot_be_changed(read: Read, minimal: str) -> None:
    recipe = read(minimal).recipe
    with pytest.raises(ValidationError):
        recipe.train.seed = 1


def test_a_run_may_go_on_with_another_engine_time_limit_or_rhythm_of_saving(read: Read, minimal: str) -> None:
    one = read(minimal).recipe
    other = read(minimal, "train.engine=accelerate", "train.max_time=2h", "train.save_every=30m").recipe
    assert all(is_free(line) for line in differences(one, other))
    assert fingerprint(one) == fingerprint(other)


def test_a_run_may_not_go_on_with_another_learning_rate(read: Read, minimal: str) -> None:
    one, other = read(minimal).recipe, read(minimal, "optim.learning_rate=5e-5").recipe
    assert not any(is_free(line) for line in differences(one, other))
    assert fingerprint(one) != fingerprint(other)
