"""What is padded for a compiled backbone, and cut off again; the engines' tests hold that torch's code is the same."""

from typing import Any

import pytest
import torch
from transformers import BartConfig, BartModel, BertConfig, BertForSequenceClassification, BertForTokenClassification

from nlp_finetune.models import compiled, packing
from nlp_finetune.models.compiled import Compiled


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """torch.compile leaves the function as it is, and notes the shapes that it is given."""
    shapes: list[tuple[int, ...]] = []

    def noting(function: Any, **_: Any) -> Any:
        def noted(**given: Any) -> Any:
            shapes.append(tuple(given["input_ids"].shape))
            return function(**given)

        return noted

    monkeypatch.setattr(torch, "compile", noting)
    return shapes


def config(**changed: Any) -> BertConfig:
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertConfig(**sizes, intermediate_size=32, max_position_embeddings=60, **no_dropout, **changed)


def batch(rows: int, length: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, 2:] = 0
    return {"input_ids": torch.randint(3, 50, (rows, length)), "attention_mask": mask}


@pytest.mark.parametrize("head", [BertForSequenceClassification, BertForTokenClassification])
def test_logits_and_gradients_are_those_of_the_batch_as_it_comes(head: Any, uncompiled: list[tuple[int, ...]]) -> None:
    model = head(config()).train()
    given = batch(3, 5)
    model(**given).logits.square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    logits = model(**given).logits
    model.zero_grad()
    Compiled(model, longest=60, say=lambda _: None)
    found = model(**given).logits
    found.square().sum().backward()
    assert uncompiled == [(3, 16)]
    torch.testing.assert_close(found, logits)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def test_a_batch_without_a_mask_does_not_see_its_padding() -> None:
    model = BertForSequenceClassification(config()).train()
    tokens = torch.randint(3, 50, (3, 5))
    expected = model(input_ids=tokens).logits
    Compiled(model, longest=60, say=lambda _: None)
    torch.testing.assert_close(model(input_ids=tokens).logits, expected)


def test_at_most_six_lengths_are_compiled_and_none_is_longer_than_the_longest_row() -> None:
    for longest in (1, 7, 48, 49, 60, 512):
        made = Compiled(BertForSequenceClassification(config()), longest=longest, say=lambda _: None)
        lengths = {made.padded_length(n) for n in range(1, longest + 1)}
        assert len(lengths) <= 6
        assert max(lengths) == longest
        assert all(n <= made.padded_length(n) for n in range(1, longest + 1))


def test_each_shape_is_announced_once_and_batches_with_fewer_rows_run_as_they_are(
    uncompiled: list[tuple[int, ...]],
) -> None:
    said: list[str] = []
    model = BertForSequenceClassification(config()).train()
    Compiled(model, longest=60, say=said.append)
    for rows, length in ((4, 5), (4, 9), (3, 9), (4, 30)):
        model(**batch(rows, length))
    assert uncompiled == [(4, 16), (4, 16), (4, 32)]
    assert said == [f"compile: 4 rows of {tokens} tokens; it takes a while, once" for tokens in (16, 32)]


def test_evaluation_runs_as_ever(uncompiled: list[tuple[int, ...]]) -> None:
    model = BertForSequenceClassification(config())
    Compiled(model, longest=60, say=lambda _: None)
    model.eval()(**batch(4, 5))
    with torch.no_grad():
        model.train()(**batch(4, 5))
    assert uncompiled == []


def test_an_encoder_with_a_decoder_is_refused() -> None:
    small = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1}
    model = BartModel(BartConfig(vocab_size=20, max_position_embeddings=16, **small, **heads))
    with pytest.raises(packing.NotPackableError, match="rows of two kinds"):
        Compiled(model, longest=8, say=lambda _: None)


def test_the_compiler_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiled.compiler() is None
    monkeypatch.setenv("CXX", "env")
    assert compiled.compiler() is not None
