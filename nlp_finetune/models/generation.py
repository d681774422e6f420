"""Text from a causal language model: greedy, or sampled with random numbers of each row's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: the likeliest, or with `do_sample` at random.

    `temperature` divides the logits; only the `top_k` likeliest tokens (all, if None), and of these the
    likeliest whose probabilities reach `top_p` together, can be drawn. At most `max_new_tokens` are.
    """

    max_new_tokens: int
    do_sample: bool
    temperature: float
    top_k: int | None
    top_p: float
    seed: int


@dataclass(frozen=True)
class Generated:
    """New token ids after a prompt, without the end of text; `finished` if the model ended it."""

    ids: list[int]
    finished: bool


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], *, rows: Sequence[int], sampling: Sampling
) -> list[Generated]:
    """Continue a batch of prompts, each at least one token long.

    `rows` are numbers that key each prompt's random numbers, so that a sample depends neither on the
    batch it is drawn in nor on the global random state.
    """
    import torch
    from transformers import GenerationConfig

    width = max(map(len, prompts))
    pad, ends = tokenizer.pad_token_id, end_ids(model, tokenizer)
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    found = model.generate(
        input_ids=ids,
        attention_mask=mask,
        generation_config=GenerationConfig(
            max_new_tokens=sampling.max_new_tokens, do_sample=False, pad_token_id=pad, eos_token_id=sorted(ends) or None
        ),
        logits_processor=_processors(rows, sampling),
    )
    return [_cut(row, ends) for row in found[:, width:].tolist()]


def end_ids(model: Any, tokenizer: Any) -> set[int]:
    """Tokens at which generation stops: the tokenizer's end of text, and what the model's own settings name."""
    own = getattr(model.generation_config, "eos_token_id", None)
    named = own if isinstance(own, list) else [own]
    return {int(token) for token in [tokenizer.eos_token_id, *named] if token is not None}


def _cut(ids: list[int], ends: set[int]) -> Generated:
    stop = next((i for i, token in enumerate(ids) if token in ends), None)
    return Generated(ids[:stop], finished=stop is not None)


def _processors(rows: Sequence[int], sampling: Sampling) -> list[Any]:
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    steps: list[Any] = []
    if sampling.do_sample:
        if sampling.temperature != 1.0:
            steps.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k is not None:
            steps.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            steps.append(TopPLogitsWarper(sampling.top_p))
        steps.append(_GumbelNoise(rows, sampling.seed))
    return LogitsProcessorList(steps)  # type: ignore[no-any-return]


class _GumbelNoise:
    """Makes the likeliest token a random one: argmax of logits + Gumbel noise is a draw from their softmax."""

    def __init__(self, rows: Sequence[int], seed: int) -> None:
        self.generators = [np.random.default_rng([seed, row]) for row in rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        noise = np.stack([generator.gumbel(size=scores.shape[-1]) for generator in self.generators])
        return scores + torch.as_tensor(noise, dtype=scores.dtype, device=scores.device)


def new_text(tokenizer: Any, prompt: Sequence[int], new: Sequence[int]) -> str:
    """What new tokens add to the text of a prompt; on their own they may lose the space before them."""
    before: str = tokenizer.decode(list(prompt), skip_special_tokens=True)
    whole: str = tokenizer.decode([*prompt, *new], skip_special_tokens=True)
    if whole.startswith(before):
        return whole[len(before) :]
    return str(tokenizer.decode(list(new), skip_special_tokens=True))
