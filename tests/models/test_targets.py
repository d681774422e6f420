"""Where adapters go and what is trained whole, family by family."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageClassification

from nlp_finetune.errors import InputError
from nlp_finetune.models import targets
from nlp_finetune.models.loading import new_parameters
from tests.models.conftest import SIZES, load

LAYERS = {
    "bert": ("encoder.layer", {"query", "key", "value", "dense"}, 12),
    "ernie": ("encoder.layer", {"query", "key", "value", "dense"}, 12),
    "electra": ("encoder.layer", {"query", "key", "value", "dense"}, 12),
    "albert": ("albert_layers.0", {"query", "key", "value", "dense", "ffn", "ffn_output"}, 6),
    "distilbert": ("transformer.layer", {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"}, 12),
    "modernbert": ("model.layers", {"Wqkv", "Wo", "Wi"}, 8),
    "gpt2": ("transformer.h", {"c_attn", "c_proj", "c_fc"}, 8),
    "t5": ("block", {"q", "k", "v", "o", "wi", "wo"}, 32),
}
"""Family -> part of every target's name, last parts of the names, number of targets in two layers."""
HEADS = {
    "bert": ["classifier"],
    "distilbert": ["classifier", "pre_classifier"],
    "electra": ["classifier"],
    "modernbert": ["classifier", "head"],
    "deberta-v2": ["classifier", "pooler"],
    "gpt2": ["score"],
    "bart": ["classification_head"],
}


def scratch(family: str, **options: Any) -> Any:
    return load(f"scratch:{family}", edits={**SIZES[family], "vocab_size": 60}, **options)


def resnet(**settings: Any) -> Any:
    sizes = {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8, "num_labels": 3}
    return AutoModelForImageClassification.from_config(AutoConfig.for_model("resnet", **{**sizes, **settings}))


@pytest.mark.parametrize("family", LAYERS)
def test_auto_takes_every_linear_layer_of_the_blocks(family: str) -> None:
    part, last, count = LAYERS[family]
    found = targets.automatic(scratch(family), whole=[])
    assert len(found) == count
    assert {name.rpartition(".")[2] for name in found} == last
    assert all(part in name for name in found)


def test_auto_takes_the_convolutions_of_a_resnet_but_its_stem() -> None:
    found = targets.automatic(resnet(), whole=[])
    assert len(found) == 7
    assert all(name.startswith("resnet.encoder.stages.") and name.endswith("convolution") for name in found)


@pytest.mark.parametrize("family", HEADS)
def test_the_head_is_trained_whole(family: str) -> None:
    assert targets.trained_whole(scratch(family), set()) == HEADS[family]


def test_a_vocabulary_is_no_head() -> None:
    assert targets.trained_whole(scratch("gpt2", auto_class="AutoModelForCausalLM", names=()), set()) == []
    assert targets.trained_whole(scratch("t5", auto_class="AutoModelForSeq2SeqLM", names=()), set()) == []


def test_a_head_inside_the_base_is_found() -> None:
    model = scratch("t5", auto_class="AutoModelForQuestionAnswering", names=("start", "end"))
    assert targets.trained_whole(model, set()) == ["qa_outputs"]


def test_batch_norm_is_trained_whole() -> None:
    whole = targets.trained_whole(resnet(), set())
    assert whole[0] == "classifier"
    assert len(whole) == 9
    assert all(name.endswith("normalization") for name in whole[1:])


def test_a_pooler_that_the_checkpoint_lacks_is_trained_whole(saved: Callable[..., str]) -> None:
    model = load(saved("bert", auto_class="AutoModelForMaskedLM"))
    assert targets.trained_whole(model, new_parameters(model)) == ["bert.pooler", "classifier"]


def test_a_new_vocabulary_head_stays_tied(saved: Callable[..., str]) -> None:
    model = load(saved("bert"), auto_class="AutoModelForMaskedLM", names=())
    assert targets.trained_whole(model, new_parameters(model)) == ["cls.predictions.transform"]


def test_what_no_adapter_can_hold_is_refused() -> None:
    model = scratch("bert", auto_class="AutoModelForMaskedLM", names=())
    torch.nn.init.normal_(model.cls.predictions.bias)
    with pytest.raises(InputError, match=r"cls\.predictions\.bias is not in the checkpoint"):
        targets.trained_whole(model, {"cls.predictions.bias"})


def test_targets_are_chosen_by_the_ends_of_names() -> None:
    model = scratch("bert")
    assert len(targets.chosen(model, ["query", "output.dense"], whole=[])) == 6
    assert "bert.pooler.dense" in targets.chosen(model, ["dense"], whole=["classifier"])
    assert targets.chosen(model, ["0.attention.self.key"], whole=[]) == ["bert.encoder.layer.0.attention.self.key"]


@pytest.mark.parametrize("wrong", ["qurey", "uery", "classifier", "embeddings"])
def test_a_target_that_is_no_layer_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match=f"lora.targets {wrong}: no layer of this model is called so"):
        targets.chosen(scratch("bert"), ["query", wrong], whole=["classifier"])


def test_a_rank_pattern_that_hits_no_target_is_refused() -> None:
    names = targets.automatic(scratch("bert"), whole=[])
    targets.check_ranks({"query": 4, r"layer\.0\..*dense": 2}, names)
    for wrong in ("c_attn", "(query"):
        with pytest.raises(InputError, match=r"lora\.rank_pattern"):
            targets.check_ranks({wrong: 4}, names)


def test_names_become_one_expression_that_matches_nothing_else() -> None:
    model = scratch("bert")
    every = targets.chosen(model, ["query", "value"], whole=[])
    assert targets.as_pattern(every, model) == r"bert\.encoder\.layer\.\d+\.attention\.self\.(query|value)"
    first = targets.chosen(model, ["0.attention.self.query"], whole=[])
    assert targets.as_pattern(first, model) == first
