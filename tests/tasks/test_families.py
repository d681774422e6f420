"""Every family on every task it has a head for: trained, saved, loaded by plain transformers, with adapters too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer

from nlp_finetune.models import adapters, targets
from tests.tasks.families import FAMILIES, ROWS, Setting, again, fits, ignore, make

# peft asks transformers for a property by its former name (peft 0.21, transformers 5.23).
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

FAST = {
    ("bert", "token_classification"),
    ("gpt2", "text_classification"),
    ("ernie", "text_classification"),
    ("roberta", "question_answering"),
    ("distilbert", "multiple_choice"),
    ("modernbert", "masked_lm"),
    ("gpt2", "causal_lm"),
    ("bart", "seq2seq"),
    ("t5", "seq2seq"),
}
"""One of each task in every run of the tests; all others are slow by their number alone."""
PAIRS = [(family, task) for family in FAMILIES for task in ROWS if fits(family, task)]
MATRIX = [pytest.param(*pair, marks=[] if pair in FAST else pytest.mark.slow, id="-".join(pair)) for pair in PAIRS]
CLASSIFIERS = [pytest.param(p.values[0], marks=p.marks) for p in MATRIX if p.values[1] == "text_classification"]
ADAPTED = {
    "bert": {"query", "key", "value", "dense"},
    "ernie": {"query", "key", "value", "dense"},
    "roberta": {"query", "key", "value", "dense"},
    "xlm-roberta": {"query", "key", "value", "dense"},
    "electra": {"query", "key", "value", "dense"},
    "albert": {"query", "key", "value", "dense", "ffn", "ffn_output"},
    "deberta": {"in_proj", "pos_proj", "pos_q_proj", "dense"},
    "deberta-v2": {"query_proj", "key_proj", "value_proj", "pos_key_proj", "pos_query_proj", "dense"},
    "distilbert": {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"},
    "modernbert": {"Wqkv", "Wo", "Wi"},
    "mpnet": {"q", "k", "v", "o", "dense"},
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "bart": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    "t5": {"q", "k", "v", "o", "wi", "wo"},
}
"""What `lora.targets: auto` finds in each family: every linear layer of its blocks, and nothing else."""


def test_the_matrix_covers_every_family_and_every_task() -> None:
    assert {family for family, _ in PAIRS} == set(FAMILIES) == set(ADAPTED)
    assert {task for _, task in PAIRS} == set(ROWS)
    assert len(PAIRS) >= 50
    assert set(PAIRS) >= FAST


@pytest.mark.parametrize(("family", "task"), MATRIX)
def test_what_is_saved_answers_the_same_in_plain_transformers(family: str, task: str, tmp_path: Path) -> None:
    setting = make(family, task)
    losses = setting.train(setting.model)
    assert losses[-1] < losses[0]
    expected = setting.answer(setting.model)
    setting.model.save_pretrained(tmp_path)
    setting.tokenizer.save_pretrained(tmp_path)
    plain = getattr(transformers, setting.task.auto_class).from_pretrained(tmp_path)
    assert torch.equal(setting.answer(plain), expected)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "the old man sells chestnuts"
    assert tokenizer(text)["input_ids"] == setting.tokenizer(text)["input_ids"]
    assert set(tokenizer(text)) == set(setting.tokenizer(text))
    with torch.no_grad():  # whatever the tokenizer gives, the model takes
        plain.base_model.eval()(**tokenizer(text, return_tensors="pt"), **_decoder_start(plain))


def _decoder_start(model: Any) -> dict[str, torch.Tensor]:
    if not model.config.is_encoder_decoder:
        return {}
    return {"decoder_input_ids": torch.tensor([[model.config.decoder_start_token_id]])}


def adapted_model(setting: Setting, model: Any, base: str) -> PeftModel:
    return adapters.add(
        model, method="lora", rank=4, alpha=16.0, dropout=0.0, targets="auto", rank_pattern={},
        auto_class=setting.task.auto_class, seed=1, base=adapters.Base(base), say=ignore,
    )  # fmt: skip


@pytest.mark.parametrize(("family", "task"), MATRIX)
def test_adapters_on_their_base_and_merged_answer_like_the_trained_model(
    family: str, task: str, tmp_path: Path
) -> None:
    setting = make(family, task)
    setting.model.save_pretrained(tmp_path / "base")
    setting.tokenizer.save_pretrained(tmp_path / "base")
    model = again(tmp_path / "base", setting)
    before = {name: p.clone() for name, p in model.named_parameters()}
    adapted = adapted_model(setting, model, str(tmp_path / "base"))
    start = setting.answer(adapted)
    setting.train(adapted, learning_rate=3e-2)
    expected = setting.answer(adapted)
    assert (expected - start).abs().max() > 1e-3
    frozen = {name.replace("base_model.model.", "").replace(".base_layer", ""): p for name, p in _frozen(adapted)}
    assert all(torch.equal(p, before[name]) for name, p in frozen.items())
    adapters.export(adapted, tmp_path / "adapter")
    config = AutoConfig.from_pretrained(tmp_path / "adapter", subfolder="base_config")
    base = getattr(transformers, setting.task.auto_class).from_pretrained(tmp_path / "base", config=config)
    close(setting.answer(PeftModel.from_pretrained(base, str(tmp_path / "adapter"))), expected)
    adapters.merge(adapted).save_pretrained(tmp_path / "merged")
    merged = getattr(transformers, setting.task.auto_class).from_pretrained(tmp_path / "merged")
    close(setting.answer(merged), expected)
    assert merged.config.id2label == setting.model.config.id2label


def _frozen(adapted: PeftModel) -> list[tuple[str, torch.Tensor]]:
    """Parameters of the base as it was, by their names in it."""
    return [
        (name, p)
        for name, p in adapted.named_parameters()
        if not p.requires_grad and "modules_to_save" not in name and "original_module" not in name
    ]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest value: what fp32 keeps of sums that large."""
    torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_automatic_targets_are_the_linear_layers_of_the_blocks(family: str) -> None:
    task = "text_classification" if fits(family, "text_classification") else "seq2seq"
    model = make(family, task).model
    found = targets.automatic(model, whole=targets.trained_whole(model, []))
    assert {name.rpartition(".")[2] for name in found} == ADAPTED[family]


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_a_text_is_classified_alike_alone_and_among_longer_ones(family: str) -> None:
    setting = make(family, "text_classification")
    with torch.no_grad():  # as it is drawn, a model this small gives nearly the same answer to every text
        for parameter in setting.model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    alone = torch.tensor(np.stack(setting.predictions(setting.model, batch_size=1)))
    together = torch.tensor(np.stack(setting.predictions(setting.model, batch_size=8)))
    assert (alone.max(0).values - alone.min(0).values).max() > 1e-3
    torch.testing.assert_close(together, alone, atol=2e-6, rtol=0)


def test_gpt2_classifies_by_the_last_token_that_is_no_padding() -> None:
    setting = make("gpt2", "text_classification")
    assert setting.model.config.pad_token_id == setting.tokenizer.pad_token_id is not None
    ids, mask = setting.batch["input_ids"], setting.batch["attention_mask"]
    assert (mask == 0).any()
    with torch.no_grad():
        logits = setting.model.eval()(input_ids=ids, attention_mask=mask).logits
        states = setting.model.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
    last = states[torch.arange(len(ids)), mask.sum(1) - 1]
    torch.testing.assert_close(logits, setting.model.score(last))


def test_merged_and_unmerged_t5_differ_by_rounding_alone() -> None:
    # T5 does not scale its attention, so numbers grow large, and what fp32 rounds off with them.
    setting = make("t5", "token_classification")
    adapted = adapted_model(setting, setting.model, "anywhere")
    setting.train(adapted, learning_rate=3e-2)
    in_fp64 = adapted.double()
    expected = setting.answer(in_fp64)
    torch.testing.assert_close(setting.answer(adapters.merge(in_fp64)), expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_an_empty_text_is_classified_too(family: str) -> None:
    setting = make(family, "text_classification", columns={"text": ["a b c", "", "old", ""], "label": list("abab")})
    alone = np.stack(setting.predictions(setting.model, batch_size=1))
    together = np.stack(setting.predictions(setting.model, batch_size=4))
    np.testing.assert_allclose(together, alone, atol=2e-6)
    np.testing.assert_allclose(alone[1], alone[3], atol=1e-7)


def test_ernie_keeps_the_epsilon_of_its_norms_and_its_task_embedding(tmp_path: Path) -> None:
    # ERNIE 1 and 2 have 1e-5, ERNIE 3 has 1e-12; the default would change what the weights compute, without a word.
    setting = make("ernie", "text_classification", layer_norm_eps=1e-5)
    setting.model.save_pretrained(tmp_path)
    model = again(tmp_path, setting)
    norms = [part for part in model.modules() if isinstance(part, torch.nn.LayerNorm)]
    assert {part.eps for part in norms} == {1e-5}
    ids = {name: setting.batch[name] for name in ("input_ids", "attention_mask")}
    kinds = torch.zeros_like(ids["input_ids"])
    with torch.no_grad():
        first, same, other = (
            model.eval()(**ids, **kind).logits for kind in ({}, {"task_type_ids": kinds}, {"task_type_ids": kinds + 1})
        )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
