"""Generation: the model's own, whatever the batch, and each row with random numbers of its own."""

from collections import Counter

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from nlp_finetune.models.generation import Sampling, generate, new_text
from tests.tokenizers import letters

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
ROWS = [1, 2, 3]


@pytest.fixture(scope="module")
def tokenizer():
    return letters()


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.4,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def sampling(**changes) -> Sampling:
    settings = {"max_new_tokens": 8, "do_sample": False, "temperature": 1.0, "top_k": None, "top_p": 1.0, "seed": 0}
    return Sampling(**{**settings, **changes})


def test_the_likeliest_tokens_are_those_of_one_step_after_the_other(model, tokenizer) -> None:
    found = generate(model, tokenizer, PROMPTS, rows=ROWS, sampling=sampling())
    assert any(new.ids for new in found)
    for prompt, new in zip(PROMPTS, found, strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for token in new.ids:
                assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
                ids.append(token)


def test_a_sample_depends_on_its_row_and_the_seed_alone(model, tokenizer) -> None:
    drawn = sampling(do_sample=True, temperature=1.5)
    together = generate(model, tokenizer, PROMPTS, rows=ROWS, sampling=drawn)
    torch.manual_seed(99)
    alone = [generate(model, tokenizer, [p], rows=[r], sampling=drawn)[0] for p, r in zip(PROMPTS, ROWS, strict=True)]
    assert together == alone
    assert generate(model, tokenizer, PROMPTS, rows=ROWS, sampling=sampling(do_sample=True, seed=1)) != together


def test_draws_have_the_models_probabilities(model, tokenizer) -> None:
    count = 2000
    drawn = generate(
        model, tokenizer, [PROMPTS[0]] * count, rows=range(count), sampling=sampling(do_sample=True, max_new_tokens=1)
    )
    with torch.no_grad():
        expected = model(torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    found = Counter(new.ids[0] if new.ids else 0 for new in drawn)
    likely = expected.topk(3).indices.tolist()
    assert [found[token] / count for token in likely] == pytest.approx(expected[likely].tolist(), abs=0.04)


def test_a_tiny_top_p_leaves_the_likeliest(model, tokenizer) -> None:
    greedy = generate(model, tokenizer, PROMPTS, rows=ROWS, sampling=sampling())
    assert generate(model, tokenizer, PROMPTS, rows=ROWS, sampling=sampling(do_sample=True, top_p=1e-6)) == greedy


def test_only_the_top_k_tokens_are_drawn(model, tokenizer) -> None:
    count = 300
    settings = sampling(do_sample=True, temperature=3.0, top_k=2, max_new_tokens=1)
    drawn = generate(model, tokenizer, [PROMPTS[0]] * count, rows=range(count), sampling=settings)
    with torch.no_grad():
        likeliest = model(torch.tensor([PROMPTS[0]])).logits[0, -1].topk(2).indices.tolist()
    assert {new.ids[0] if new.ids else 0 for new in drawn} == set(likeliest)


def test_generation_stops_at_the_end_of_text(model, tokenizer) -> None:
    count = 200
    found = generate(
        model, tokenizer, [[5]] * count, rows=range(count), sampling=sampling(do_sample=True, temperature=3.0)
    )
    assert {True, False} == {new.finished for new in found}
    assert all((len(new.ids) < 8) == new.finished and 0 not in new.ids for new in found)


def test_new_text_is_what_was_added(tokenizer) -> None:
    ids = tokenizer("once upon a time")["input_ids"]
    assert new_text(tokenizer, ids[:6], [*ids[6:], tokenizer.eos_token_id]) == "pon a time"
