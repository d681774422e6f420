"""The compact embedding layer, and which models can have one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn

from nlp_finetune.data.lengths import tokens_used
from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.models.compact import CompactEmbedding, compact, obstacle
from tests.tasks.families import make

USED = np.array([0, 3, 4, 9])


def table() -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(12, 5, padding_idx=0)


def test_it_looks_up_every_token_in_evaluation() -> None:
    whole = table()
    ids = torch.arange(12).view(3, 4)
    assert torch.equal(CompactEmbedding(whole, USED).eval()(ids), whole(ids))


def test_it_gives_the_used_rows_the_gradients_of_the_whole_table() -> None:
    whole = table()
    small = CompactEmbedding(whole, USED).train()
    ids = torch.tensor([[3, 9, 3, 0], [4, 9, 9, 0]])
    for layer in (whole, small):
        (layer(ids) ** 2).sum().backward()
    assert small.weight.shape == (4, 5)
    assert torch.equal(small.weight.grad, whole.weight.grad[USED])
    assert not small.weight.grad[0].any()  # padding


def test_a_token_of_no_training_row_is_refused_in_training() -> None:
    with pytest.raises(NlpFinetuneError, match=r"tokens \[5\]"):
        CompactEmbedding(table(), USED).train()(torch.tensor([3, 5]))


def test_it_saves_and_loads_what_the_whole_table_would() -> None:
    whole, other = table(), nn.Embedding(12, 5)
    small = CompactEmbedding(whole, USED)
    assert {name: value.tolist() for name, value in small.state_dict().items()} == {"weight": whole.weight.tolist()}
    small.load_state_dict(other.state_dict())
    assert torch.equal(small.whole(), other.weight)
    with pytest.raises(RuntimeError, match="size mismatch"):
        small.load_state_dict(nn.Embedding(11, 5).state_dict())


def test_all_tokens_of_rows_are_found_in_one_sequence_or_several() -> None:
    single = Dataset.from_dict({"input_ids": [[5, 2], [2, 9, 5]]})
    several = Dataset.from_dict({"input_ids": [[[5, 2], [7]], [[2, 9, 5]]]})
    assert tokens_used(single, besides=[1, 9]).tolist() == [1, 2, 5, 9]
    assert tokens_used(several).tolist() == [2, 5, 7, 9]
    assert tokens_used(several.select([0])).tolist() == [2, 5, 7]


@pytest.mark.parametrize("family", ["bert", "ernie", "distilbert", "gpt2", "modernbert"])
def test_a_model_with_it_is_saved_as_one_without(family: str, tmp_path: Path) -> None:
    setting = make(family, "text_classification")
    expected = setting.answer(setting.model)
    ids = setting.batch["input_ids"].unique().numpy()
    assert obstacle(setting.model) is None
    layer = compact(setting.model, ids)
    assert torch.equal(setting.answer(setting.model), expected)
    setting.train(setting.model)
    trained = setting.answer(setting.model)
    setting.model.save_pretrained(tmp_path)
    plain = type(setting.model).from_pretrained(tmp_path)
    assert torch.equal(setting.answer(plain), trained)
    assert not torch.equal(trained, expected)
    assert plain.get_input_embeddings().weight.shape[0] == layer.num_embeddings


@pytest.mark.parametrize(
    ("family", "task", "reason"),
    [("gpt2", "causal_lm", "tied"), ("t5", "seq2seq", "encoder and decoder"), ("bert", "masked_lm", "tied")],
)
def test_a_table_that_more_reads_than_the_embedding_layer_is_left_whole(family: str, task: str, reason: str) -> None:
    assert reason in str(obstacle(make(family, task).model))
