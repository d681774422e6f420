"""The last block for the first token alone: loss, logits and every gradient are those of the whole block."""

import copy
from typing import Any

import pytest
import torch

from nlp_finetune.learning.losses import build_loss
from nlp_finetune.models.first_token import FirstTokenOnly, fault
from nlp_finetune.models.packing import NotPackableError, Packing
from tests.tasks.families import Setting, make
from tests.tasks.test_families import adapted_model
from tests.tasks.test_packing import close, step

FAMILIES = ("bert", "ernie", "roberta", "xlm-roberta", "electra", "distilbert", "modernbert")
"""Families whose classifiers read the first token alone."""


def sharp(model: Any) -> Any:
    """The model with weights that make it look at its input: as they are drawn, models this small hardly do."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dim() > 1:
                parameter.normal_(std=0.15)
    return model


def run_of(setting: Setting, model: Any) -> Any:
    objective = setting.task.objective(build_loss(setting.task.losses()[0]))
    return lambda: objective(model, setting.batch, setting.task.count_items(setting.batch))


def seen_by_last_block(first: FirstTokenOnly) -> list[int]:
    """Numbers of tokens a row for which linear layers of the last block are computed, filled as it runs."""
    counts: list[int] = []
    for part in first.block.modules():
        if isinstance(part, torch.nn.Linear):
            part.register_forward_hook(lambda module, args, output: counts.append(args[0].shape[1]))
    return counts


def assert_same(setting: Setting, model: Any, *, packs: bool = False) -> None:
    cut = copy.deepcopy(sharp(model))
    first = FirstTokenOnly(cut, run_of(setting, cut))
    assert fault(first, run_of(setting, cut)) is None
    if packs:
        Packing(cut, but_last=True)
    counts = seen_by_last_block(first)
    loss, outputs, gradients = step(setting, cut)
    assert counts.count(1) >= len(counts) // 2 > 0
    expected_loss, expected, expected_gradients = step(setting, model)
    close(loss, expected_loss)
    close(outputs["logits"], expected["logits"])
    assert gradients.keys() == expected_gradients.keys()
    largest = max(float(value.abs().max()) for value in expected_gradients.values())
    assert largest > 1e-3
    for name, value in expected_gradients.items():
        apart = float((gradients[name] - value).abs().max())
        assert apart <= 3e-5 * largest, f"{name}: {apart:.2g} of {largest:.2g}"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_that_of_the_whole_block(family: str) -> None:
    setting = make(family, "text_classification")
    assert_same(setting, setting.model)


@pytest.mark.parametrize("family", ["bert", pytest.param("roberta", marks=pytest.mark.slow)])
def test_a_step_with_adapters_is_that_of_the_whole_block(family: str) -> None:
    setting = make(family, "text_classification")
    assert_same(setting, adapted_model(setting, setting.model, "base"))


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_step_without_padding_is_that_of_the_whole_block(family: str) -> None:
    setting = make(family, "text_classification")
    assert_same(setting, setting.model, packs=True)


def test_options_are_read_by_their_first_token_too() -> None:
    setting = make("bert", "multiple_choice")
    assert_same(setting, setting.model)


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("bert", "token_classification"),
        ("bert", "masked_lm"),
        ("bert", "question_answering"),
        ("gpt2", "text_classification"),
    ],
)
def test_a_head_that_reads_other_tokens_is_found_out(family: str, task: str) -> None:
    setting = make(family, task)
    sharp(setting.model)
    before = setting.answer(setting.model)
    first = FirstTokenOnly(setting.model, run_of(setting, setting.model))
    assert fault(first, run_of(setting, setting.model)) is not None
    first.remove()
    close(setting.answer(setting.model), before)


@pytest.mark.parametrize(("family", "why"), [("albert", "several times"), ("mpnet", "a way of its own")])
def test_a_family_that_cannot_do_it_is_told_apart(family: str, why: str) -> None:
    setting = make(family, "text_classification")
    with pytest.raises(NotPackableError, match=why):
        FirstTokenOnly(setting.model, run_of(setting, setting.model))


def test_evaluation_computes_all_tokens() -> None:
    setting = make("bert", "text_classification")
    counts = seen_by_last_block(FirstTokenOnly(setting.model, run_of(setting, setting.model)))
    setting.answer(setting.model)
    assert counts
    assert 1 not in counts
