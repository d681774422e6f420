"""Masks of a text filled in by a masked language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

_MOST_TOKENS = 4096
"""Tokens of one forward pass: each has a logit for every word of the vocabulary."""


class _Place(NamedTuple):
    """A mask in a window: its row, first character in the text, tokens to the nearer end, window, token."""

    row: int
    start: int
    context: int
    window: int
    token: int


def fill(model: Any, tokenizer: Any, texts: Sequence[str], *, max_length: int, top_k: int) -> list[dict[str, Any]]:
    """Candidates for each mask of a batch of texts, on their own: one mask's choice does not bear on another's.

    Gives `text`, with the best candidates put in, and `masks`: for each mask a list of `{"token", "score"}`,
    the likeliest first. A text of more than `max_length` tokens is read in windows that overlap by half,
    each mask in the one that shows most on both of its sides.
    """
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        stride=(max_length - tokenizer.num_special_tokens_to_add()) // 2,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    rows, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
    best: dict[tuple[int, int], _Place] = {}
    for window, ids in enumerate(encoded["input_ids"]):
        for token in (i for i, one in enumerate(ids) if one == tokenizer.mask_token_id):
            place = _Place(rows[window], offsets[window][token][0], min(token, len(ids) - 1 - token), window, token)
            known = best.get(place[:2])
            if known is None or place.context > known.context:
                best[place[:2]] = place
    found = _candidates(model, tokenizer, encoded, list(best.values()), top_k=top_k)
    answers = []
    for row, text in enumerate(texts):
        masks = [found[place] for place in sorted(best.values()) if place.row == row]
        before, *rest = text.split(tokenizer.mask_token)
        filled = [candidates[0]["token"] + after for candidates, after in zip(masks, rest, strict=True)]
        answers.append({"text": "".join([before, *filled]), "masks": masks})
    return answers


def _candidates(
    model: Any, tokenizer: Any, encoded: Any, places: Sequence[_Place], *, top_k: int
) -> dict[_Place, list[dict[str, Any]]]:
    """The likeliest tokens at each place; only windows that hold one are run."""
    found = {}
    windows = sorted({place.window for place in places}, key=lambda window: len(encoded["input_ids"][window]))
    while windows:
        longest = len(encoded["input_ids"][windows[-1]])
        together = windows[-max(1, _MOST_TOKENS // longest) :]
        del windows[-len(together) :]
        inputs = {name: [values[window] for window in together] for name, values in encoded.items()}
        batch = tokenizer.pad(inputs, padding="longest", padding_side="right", return_tensors="pt").to(model.device)
        logits = model(**batch).logits
        for place in (one for one in places if one.window in together):
            scores = logits[together.index(place.window), place.token].float().softmax(-1)
            top = scores.topk(min(top_k, len(scores)))
            found[place] = [
                {"token": tokenizer.decode([token]).strip(), "score": score}
                for token, score in zip(top.indices.tolist(), top.values.tolist(), strict=True)
            ]
    return found
