"""What is frozen stays as it is, by structure and for every family, and runs in evaluation mode."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, ResNetConfig, ResNetForImageClassification

from nlp_finetune.errors import InputError
from nlp_finetune.models.freezing import freeze, frozen_modules, thaw_groups
from nlp_finetune.models.summary import layer_groups
from tests.models.conftest import SIZES, Lines, ignore, load


def frozen(model: torch.nn.Module, layers: int | None = None, *patterns: str, all_but_head: bool = False) -> set[str]:
    freeze(model, layers, patterns, all_but_head, say=ignore)
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def resnet() -> torch.nn.Module:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    return ResNetForImageClassification(config)


def small(family: str, **options) -> torch.nn.Module:
    return load(f"scratch:{family}", edits=SIZES[family], **options)


@pytest.mark.parametrize("family", SIZES)
def test_layers_freeze_the_embeddings_and_the_first_blocks(family: str) -> None:
    model = small(family)
    frozen(model, 1)
    groups = layer_groups(model)
    blocks = [group for group in groups if group.kind == "block"]
    assert all(group.trainable == 0.0 for group in groups if group.kind == "embeddings")
    assert [group.trainable for group in blocks] == [0.0, *[1.0] * (len(blocks) - 1)]
    assert all(group.trainable == 1.0 for group in groups if group.kind in ("norm", "pooler", "head"))


def test_zero_layers_are_the_embeddings_alone() -> None:
    assert {name.split(".")[1] for name in frozen(small("bert"), 0)} == {"embeddings"}


def test_stages_of_a_resnet_are_its_layers() -> None:
    names = frozen(resnet(), 1)
    assert {".".join(name.split(".")[:4]) for name in names if "stages" in name} == {"resnet.encoder.stages.0"}
    assert any(name.startswith("resnet.embedder.") for name in names)


@pytest.mark.parametrize("family", [name for name in SIZES if name != "t5"])
def test_all_but_the_head_leaves_the_head(family: str) -> None:
    model = small(family)
    names = frozen(model, all_but_head=True)
    assert {group.kind for group in layer_groups(model) if group.trainable} == {"head"}
    assert names


def test_what_the_checkpoint_lacks_trains_with_the_head(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=30, **SIZES["bert"])
    BertForMaskedLM(config).save_pretrained(tmp_path)
    model = load(str(tmp_path))
    trained = {name for name, _ in model.named_parameters()} - frozen(model, all_but_head=True)
    assert {name.split(".")[-2] for name in trained} == {"dense", "classifier"}
    assert any("pooler" in name for name in trained)


def test_patterns_are_globs_over_names() -> None:
    names = frozen(small("bert"), None, "*.attention.*", "*LayerNorm.bias")
    assert names
    assert all(".attention." in name or name.endswith("LayerNorm.bias") for name in names)


def test_tied_output_layers_freeze_with_the_embeddings() -> None:
    model = load("scratch:gpt2", names=(), auto_class="AutoModelForCausalLM", edits=SIZES["gpt2"])
    frozen(model, 0)
    assert not model.get_output_embeddings().weight.requires_grad


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3,), {}, r"freeze.layers 3: this model \(bert\) has 2 blocks"),
        ((None, "*.atention.*"), {}, r"freeze.patterns \*.atention.\*: no parameter of this model is called so"),
        ((None, "*"), {}, "nothing left to train"),
    ],
)
def test_what_freezes_nothing_or_everything_is_refused(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        frozen(small("bert"), *arguments, **options)


def test_a_shared_block_is_said_to_be_one() -> None:
    with pytest.raises(InputError, match="has 1 block, which a forward pass runs 2 times"):
        frozen(small("albert"), 2)


def test_a_model_without_a_head_of_its_own_is_refused() -> None:
    for family, auto_class in (("gpt2", "AutoModelForCausalLM"), ("bert", "AutoModel")):
        model = load(f"scratch:{family}", names=(), auto_class=auto_class, edits=SIZES[family])
        with pytest.raises(InputError, match="has no head of its own"):
            frozen(model, all_but_head=True)


def test_a_line_says_what_is_frozen_and_how_much_trains(said: Lines) -> None:
    freeze(small("bert"), 1, [], False, say=said)
    assert said[0].startswith("frozen: bert.embeddings, bert.encoder.layer.0; ")
    assert "parameters trained (" in said[0]


def test_nothing_is_said_or_frozen_unless_asked(said: Lines) -> None:
    freeze(small("bert"), None, [], False, say=said)
    assert not said


@pytest.mark.parametrize("family", SIZES)
def test_groups_that_thaw_are_all_that_trains_each_once_from_the_top(family: str) -> None:
    model = small(family)
    groups = thaw_groups(model)
    every = [id(parameter) for _, own in groups for parameter in own]
    assert sorted(every) == sorted(id(parameter) for parameter in model.parameters())
    blocks = [group.name for group in layer_groups(model) if group.kind == "block"]
    names = [name for name, _ in groups[1:-1]]
    assert names == blocks[::-1][len(blocks) - len(names) :]


def test_a_model_without_a_head_begins_with_its_last_block() -> None:
    model = load("scratch:bert", names=(), auto_class="AutoModel", edits=SIZES["bert"])
    assert thaw_groups(model)[0][0] == "pooler, encoder.layer.1"


def test_a_tied_output_layer_thaws_with_the_embeddings() -> None:
    model = load("scratch:gpt2", names=(), auto_class="AutoModelForCausalLM", edits=SIZES["gpt2"])
    groups = thaw_groups(model)
    tied = id(model.get_output_embeddings().weight)
    assert [tied in map(id, own) for _, own in groups] == [False] * (len(groups) - 1) + [True]


def test_what_is_frozen_for_good_never_thaws() -> None:
    model = small("bert")
    frozen(model, 1)
    assert [name for name, _ in thaw_groups(model)] == ["bert.pooler, classifier", "bert.encoder.layer.1"]


def test_modules_are_frozen_as_a_whole_or_by_their_parts() -> None:
    model = small("bert")
    frozen(model, 1, "bert.encoder.layer.1.output.*")
    names = [name for name, _ in frozen_modules(model)]
    assert names == ["bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1.output"]


def test_frozen_blocks_drop_nothing_whatever_mode_the_model_is_in() -> None:
    model = small("bert", dropout=0.5)
    tokens = torch.arange(5, 15).view(2, 5)
    model.train()
    assert not torch.equal(*(model.bert(tokens).last_hidden_state for _ in range(2)))
    frozen(model, all_but_head=True)
    hidden = []
    model.bert.register_forward_hook(lambda module, _, output: hidden.append(output.last_hidden_state))
    for _ in range(2):
        model.train()
        model(tokens)
    assert torch.equal(*hidden)
    assert model.dropout.training  # the head's own dropout stays


def test_statistics_of_frozen_batch_norms_stay_and_those_of_others_move() -> None:
    model = resnet()
    frozen(model, 1)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    model(torch.rand(4, 3, 32, 32))
    moved = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert moved
    assert all(name.startswith("resnet.encoder.stages.1.") for name in moved)
