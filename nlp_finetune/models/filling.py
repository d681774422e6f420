"""Masks of a text filled in by a masked language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def fill(model: Any, tokenizer: Any, texts: Sequence[str], *, max_length: int, top_k: int) -> list[dict[str, Any]]:
    """Candidates for each mask of a batch of texts, on their own: one mask's choice does not bear on another's.

    Gives `text`, with the best candidates put in, and `masks`: for each mask a list of `{"token", "score"}`,
    the likeliest first. Masks beyond `max_length` tokens are not filled.
    """
    inputs = tokenizer(
        list(texts), padding=True, truncation=True, max_length=max_length, padding_side="right", return_tensors="pt"
    ).to(model.device)
    probabilities = model(**inputs).logits.float().softmax(-1)
    scores, ids = probabilities.topk(min(top_k, probabilities.shape[-1]), dim=-1)
    answers = []
    for row, tokens in enumerate(inputs["input_ids"]):
        places = (tokens == tokenizer.mask_token_id).nonzero()[:, 0].tolist()
        masks = [
            [
                {"token": tokenizer.decode([token]).strip(), "score": score}
                for token, score in zip(ids[row, place].tolist(), scores[row, place].tolist(), strict=True)
            ]
            for place in places
        ]
        filled = texts[row]
        for candidates in masks:
            filled = filled.replace(tokenizer.mask_token, candidates[0]["token"], 1)
        answers.append({"text": filled, "masks": masks})
    return answers
