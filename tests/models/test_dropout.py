"""Dropout by cheap random bits."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from nlp_finetune.models import row_attention
from nlp_finetune.models.dropout import FastDropout, fast_dropout, put_fast_dropout
from tests.tasks.families import FAMILIES, fits, make

COUNT = 200_000


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.93])
def test_each_element_is_dropped_with_the_probability_asked_for(p: float) -> None:
    torch.manual_seed(0)
    kept = fast_dropout(torch.ones(COUNT), p)
    dropped = float((kept == 0).float().mean())
    assert abs(dropped - p) < 4 * math.sqrt(p * (1 - p) / COUNT) + 1 / 65536
    assert kept[kept != 0].unique().numel() == 1
    assert float(kept.max()) == pytest.approx(1 / (1 - p), rel=1e-3)


def test_elements_are_dropped_independently_of_their_neighbours() -> None:
    torch.manual_seed(1)
    dropped = (fast_dropout(torch.ones(COUNT), 0.5) == 0).float() - 0.5
    # Four elements share one number of the generator: their neighbours up to there, and beyond.
    for distance in (1, 2, 3, 4, 8):
        correlation = 4 * float((dropped[distance:] * dropped[:-distance]).mean())
        assert abs(correlation) < 4 / math.sqrt(COUNT)


def test_the_probability_is_uniform_over_its_bits() -> None:
    torch.manual_seed(2)
    kept = torch.stack([(fast_dropout(torch.ones(1000), p / 16) == 0).sum() for p in range(1, 16)])
    spread = [math.sqrt(1000 * p / 16 * (1 - p / 16)) for p in range(1, 16)]
    assert all(abs(int(n) - 1000 * p / 16) < 5 * s for p, (n, s) in enumerate(zip(kept, spread, strict=True), 1))


def test_the_gradient_goes_where_the_values_went() -> None:
    x = torch.ones(1000, requires_grad=True)
    y = fast_dropout(x, 0.3)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_the_same_seed_gives_the_same_masks_and_a_saved_state_goes_on() -> None:
    x = torch.ones(999)
    torch.manual_seed(3)
    first, state = fast_dropout(x, 0.5), torch.random.get_rng_state()
    second = fast_dropout(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(fast_dropout(x, 0.5), first)
    torch.random.set_rng_state(state)
    assert torch.equal(fast_dropout(x, 0.5), second)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_in_evaluation_nor_drawn_at_probability_zero() -> None:
    x, state = torch.randn(10), torch.random.get_rng_state()
    assert torch.equal(FastDropout(0.5).eval()(x), x)
    assert torch.equal(FastDropout(0.0)(x), x)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not fast_dropout(x, 1.0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_keep_their_type(dtype: torch.dtype) -> None:
    assert fast_dropout(torch.ones(8, dtype=dtype), 0.5).dtype == dtype


@pytest.mark.parametrize("family", [name for name in FAMILIES if fits(name, "text_classification")])
def test_every_family_has_it_in_all_of_its_layers(family: str) -> None:
    setting = make(family, "text_classification")
    model: Any = setting.model
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    expected = sum(isinstance(module, nn.Dropout) for module in model.modules())
    assert put_fast_dropout(model) == expected
    assert not any(type(module) is nn.Dropout for module in model.modules())
    inputs = setting.task.model_inputs(setting.batch)
    torch.manual_seed(4)
    one = model.train()(**inputs).logits
    torch.manual_seed(4)
    assert torch.equal(model(**inputs).logits, one)
    if expected:
        assert not torch.equal(model(**inputs).logits, one)


@pytest.mark.parametrize("family", ["bert", "gpt2", "modernbert", "bart"])
def test_attention_of_padded_batches_is_the_family_s_own(family: str) -> None:
    setting = make(family, "text_classification")
    expected = setting.answer(setting.model)
    row_attention.use(setting.model, fast_dropout=True)
    torch.testing.assert_close(setting.answer(setting.model), expected, rtol=0, atol=1e-6)
