"""Logits at some places only: the same numbers and gradients, for every family with a masked head."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from nlp_finetune.models.places import logits_at

SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
FAMILIES = {
    "bert": SIZES,
    "roberta": SIZES,
    "xlm-roberta": SIZES,
    "ernie": SIZES,
    "electra": {**SIZES, "embedding_size": 16},
    "albert": {**SIZES, "embedding_size": 16},
    "mpnet": SIZES,
    "deberta-v2": SIZES,
    "distilbert": {"vocab_size": 60, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16},
    "modernbert": {
        **SIZES,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_all_places(family: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(family, **FAMILIES[family])).eval()
    ids = torch.randint(5, 60, (3, 8))
    places = torch.zeros(3, 8, dtype=torch.bool)
    places[0, 2] = places[0, 5] = places[2, 7] = True
    mask = torch.ones_like(ids)
    gradients = []
    for some in (False, True):
        model.zero_grad()
        if some:
            with logits_at(model, places):
                logits = model(input_ids=ids, attention_mask=mask).logits
            assert logits.shape == (3, 60)
        else:
            logits = model(input_ids=ids, attention_mask=mask).logits[places]
        logits.square().sum().backward()
        gradients.append([logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(gradients[0]) == len(gradients[1])
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*gradients, strict=True))
    assert model(input_ids=ids, attention_mask=mask).logits.shape == (3, 8, 60)


def test_a_model_without_such_a_matrix_makes_all_logits() -> None:
    model = torch.nn.Linear(4, 2)
    with logits_at(model, torch.ones(1, 3, dtype=torch.bool)):
        assert model(torch.zeros(1, 3, 4)).shape == (1, 3, 2)
