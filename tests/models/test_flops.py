"""Operations of a training step: what torch counts is the formula of the field, whatever trains."""

from typing import Any

import numpy as np
import pytest
import torch

import nlp_finetune.engines  # noqa: F401  before the first import of transformers
from nlp_finetune.models import flops
from tests.models.conftest import SIZES

WIDTH, INNER, LAYERS, RANK, CLASSES = 16, 32, 3, 2, 2
BLOCK = 4 * WIDTH**2 + 2 * WIDTH * INNER
"""Numbers in the matrices of a block."""
HEAD = WIDTH**2 + CLASSES * WIDTH
"""The pooler and the classifier, which read one vector a row."""


def bert(attention: str = "sdpa") -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=2, vocab_size=50,
        num_labels=CLASSES,
    )  # fmt: skip
    return BertForSequenceClassification._from_config(config, attn_implementation=attention)


def counted(model: Any, tokens: int) -> int:
    ids = torch.arange(tokens)[None] % 20 + 5

    def step() -> None:
        outputs = model(input_ids=ids)
        torch.autograd.backward(next(value for value in outputs.values() if torch.is_tensor(value)).sum())

    found = flops.count(step)
    model.zero_grad()
    return found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("tokens", [7, 24])
def test_a_model_that_trains_as_a_whole_takes_six_for_each_weight_and_token_and_its_attention(
    attention: str, tokens: int
) -> None:
    expected = LAYERS * (6 * BLOCK * tokens + 12 * tokens**2 * WIDTH) + 6 * HEAD
    assert counted(bert(attention), tokens) == expected


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("frozen", [1, 2])
def test_frozen_layers_take_the_forward_pass_alone(attention: str, frozen: int) -> None:
    model, tokens = bert(attention), 12
    for part in (model.bert.embeddings, *model.bert.encoder.layer[:frozen]):
        part.requires_grad_(False)
    trained = LAYERS - frozen
    blocks = frozen * (2 * BLOCK * tokens + 4 * tokens**2 * WIDTH) + trained * (
        6 * BLOCK * tokens + 12 * tokens**2 * WIDTH
    )
    first = 2 * 3 * WIDTH**2 * tokens  # query, key and value of the first block that trains read what needs no gradient
    assert counted(model, tokens) == blocks - first + 6 * HEAD


def test_a_frozen_body_takes_a_third_of_its_training() -> None:
    model, tokens = bert(), 12
    model.bert.requires_grad_(False)
    body = LAYERS * (2 * BLOCK * tokens + 4 * tokens**2 * WIDTH) + 2 * WIDTH**2
    assert counted(model, tokens) == body + 4 * CLASSES * WIDTH


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_adapters_take_two_thirds_of_the_matrices_and_what_they_are_themselves() -> None:
    from peft import LoraConfig, get_peft_model

    model, tokens = bert("eager"), 12
    config = LoraConfig(r=RANK, target_modules=["query", "value"], modules_to_save=["classifier"], lora_dropout=0.0)
    adapted = get_peft_model(model, config)
    body = LAYERS * (4 * BLOCK * tokens + 12 * tokens**2 * WIDTH) + 4 * WIDTH**2 + 6 * CLASSES * WIDTH
    adapters = LAYERS * 2 * 6 * 2 * RANK * WIDTH * tokens
    # Nothing before the first block trains: what reads its input passes no gradient on, and its keys need none at all.
    unread = 2 * tokens * (3 * WIDTH**2 + 2 * RANK * WIDTH) + 2 * tokens**2 * WIDTH
    assert counted(adapted, tokens) == body + adapters - unread


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "electra", "roberta", "gpt2", "modernbert"])
def test_what_rows_of_three_lengths_take_tells_what_rows_of_any_length_take(family: str) -> None:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(family, **SIZES[family], vocab_size=50)).eval()
    lengths = [3, 9, 20]
    work = flops.fitted(lengths, [counted(model, tokens) for tokens in lengths])
    assert work.of([14, 5]) == pytest.approx(counted(model, 14) + counted(model, 5), rel=1e-6)


def test_a_convolution_takes_two_for_each_weight_and_place_and_pass() -> None:
    layer = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
    image = torch.rand(2, 3, 8, 8, requires_grad=True)
    assert flops.count(lambda: layer(image).sum().backward()) == 6 * layer.weight.numel() * 2 * 64


@pytest.mark.parametrize("lengths", [[4], [4, 4], [4, 9]])
def test_rows_of_few_lengths_have_a_line_through_them(lengths: list[int]) -> None:
    work = flops.fitted(lengths, [3.0 * length + 1 for length in lengths])
    assert [work.of([length]) for length in lengths] == pytest.approx([3.0 * length + 1 for length in lengths])


def test_rows_that_differ_beside_their_length_are_met_in_the_mean() -> None:
    lengths = list(range(1, 40))
    noise = np.random.default_rng(0).normal(size=len(lengths))
    work = flops.fitted(lengths, [5 * n * n + 7 * n + 2 + e for n, e in zip(lengths, noise, strict=True)])
    assert work.of(lengths) == pytest.approx(sum(5 * n * n + 7 * n + 2 for n in lengths), rel=1e-3)
