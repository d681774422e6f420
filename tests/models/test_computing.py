"""Inference in bf16: near fp32, and its results are fp32."""

import torch
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from nlp_finetune.models.computing import in_bf16

CPU = torch.device("cpu")
IDS = torch.arange(24).reshape(2, 12)


def test_a_classifier_in_bf16_gives_other_logits_near_those_of_fp32_as_fp32() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(vocab_size=50, **sizes)).eval()
    with torch.inference_mode():
        exact = model(input_ids=IDS).logits
        in_bf16(model, CPU)
        rounded = model(input_ids=IDS).logits
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02)
    assert all(weights.dtype == torch.float32 for weights in model.parameters())


def test_a_model_in_bf16_generates() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1)
    model = GPT2LMHeadModel(config).eval()
    in_bf16(model, CPU)
    found = model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=4, do_sample=False, pad_token_id=1)
    assert found.shape == (2, 16)
