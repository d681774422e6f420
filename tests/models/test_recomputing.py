"""Blocks that are computed again: really so, only where something trains, and refused by name where they can't be."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, ResNetConfig, ResNetForImageClassification

from nlp_finetune.errors import InputError
from nlp_finetune.models import freezing, recomputing


def bert(**sizes: int) -> BertForSequenceClassification:
    torch.manual_seed(0)
    given = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, **sizes}
    return BertForSequenceClassification(BertConfig(**given, intermediate_size=16)).train()


def runs_of_each_block(model: BertForSequenceClassification) -> list[int]:
    """How often one training step runs the attention of each block."""
    counts = [0] * len(model.bert.encoder.layer)
    for number, block in enumerate(model.bert.encoder.layer):

        def count(*_: object, number: int = number) -> None:
            counts[number] += 1

        block.attention.self.register_forward_hook(count)
    model(input_ids=torch.arange(5, 17).view(3, 4), labels=torch.tensor([0, 1, 0])).loss.backward()
    return counts


def test_every_block_runs_again_in_the_backward_pass() -> None:
    model = bert()
    assert runs_of_each_block(model) == [1, 1]
    recomputing.turn_on(model)
    assert runs_of_each_block(model) == [2, 2]
    recomputing.turn_off(model)
    assert runs_of_each_block(model) == [1, 1]


def test_frozen_blocks_below_get_no_gradient_and_are_not_run_again() -> None:
    model = bert()
    freezing.freeze(model, 1, [], False, say=lambda _: None)
    recomputing.turn_on(model)
    assert runs_of_each_block(model) == [1, 2]
    assert model.bert.encoder.layer[1].attention.self.query.weight.grad is not None
    assert not model.bert.embeddings(torch.ones(1, 2, dtype=torch.long)).requires_grad


def test_less_is_kept_for_the_backward_pass() -> None:
    kept = []
    for recomputes in (False, True):
        model = bert(num_hidden_layers=6)
        if recomputes:
            recomputing.turn_on(model)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.nbytes) or t, lambda t: t):
            model(input_ids=torch.ones(8, 32, dtype=torch.long))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_a_family_that_cannot_is_refused_by_name() -> None:
    model = ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]))
    with pytest.raises(InputError, match="gradient_checkpointing on: resnet"):
        recomputing.check_supported(model)
    recomputing.check_supported(bert())
