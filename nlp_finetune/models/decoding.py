"""Text from an encoder-decoder: greedy or by beam search, the same from plain `model.generate` once saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from transformers import GenerationConfig

_SPECIAL = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id", "forced_bos_token_id")
"""What generation needs of the checkpoint's own settings; the others are replaced by the recipe's."""
_REPLACED = ("num_beams", "min_length", "max_length", "length_penalty", "no_repeat_ngram_size", "early_stopping")


@dataclass(frozen=True)
class Search:
    """How tokens are chosen: the likeliest one (`num_beams` 1), or the likeliest sequence of so many beams.

    `length_penalty` above 0 favours long sequences of beams, below 0 short ones; no sequence of
    `no_repeat_ngram_size` tokens occurs twice (0: any may). At most `max_new_tokens` are written.
    """

    max_new_tokens: int
    num_beams: int
    length_penalty: float
    no_repeat_ngram_size: int


class Written(NamedTuple):
    """Text that a model wrote, its tokens without special ones, and whether the model ended it."""

    text: str
    tokens: int
    finished: bool


def configure(model: Any, search: Search, say: Callable[[str], None]) -> None:
    """Make `search` the model's own way of generating, which is saved with it; say what that replaces."""
    own = model.generation_config
    replaced = {name: getattr(own, name, None) for name in _REPLACED}
    shown = [f"{name} {value}" for name, value in replaced.items() if value not in (None, False, 0, 1, 1.0, 20)]
    model.generation_config = settings(model, search)
    how = "greedy" if search.num_beams == 1 else f"{search.num_beams} beams"
    line = f"generation: {how}, at most {search.max_new_tokens} new tokens"
    say(line + (f"; the checkpoint's own settings ({', '.join(shown)}) are not used" if shown else ""))


def settings(model: Any, search: Search) -> GenerationConfig:
    """Generation settings for `search`, with the special tokens of the model's own."""
    from transformers import GenerationConfig

    own = {name: getattr(model.generation_config, name, None) for name in _SPECIAL}
    return GenerationConfig(
        **{name: value for name, value in own.items() if value is not None},
        do_sample=False,
        max_new_tokens=search.max_new_tokens,
        num_beams=search.num_beams,
        length_penalty=search.length_penalty if search.num_beams > 1 else None,
        no_repeat_ngram_size=search.no_repeat_ngram_size,
    )


def write(
    model: Any, tokenizer: Any, batch: Mapping[str, Any], *, search: Search, encoded: Any = None
) -> list[Written]:
    """What the model writes for each row of a batch of `input_ids` and `attention_mask`.

    `encoded` are the encoder's states of these rows `[rows, length, width]`, where they are known already.
    Raises `InputError` where the decoder has fewer positions than tokens are asked for.
    """
    from transformers.modeling_outputs import BaseModelOutput

    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and search.max_new_tokens >= positions:
        raise InputError(f"task.max_new_tokens {search.max_new_tokens}: the model has {positions} positions.")
    inputs = {"input_ids": batch["input_ids"]}
    if encoded is not None:
        inputs = {"encoder_outputs": BaseModelOutput(last_hidden_state=encoded)}
    chosen = settings(model, search)
    found = model.generate(**inputs, attention_mask=batch["attention_mask"], generation_config=chosen)
    ends = chosen.eos_token_id if isinstance(chosen.eos_token_id, list) else [chosen.eos_token_id]
    # The first token is where the decoder starts; BART starts with what ends a text.
    return [_written(row[1:], set(ends), tokenizer) for row in found.tolist()]


def _written(ids: list[int], ends: set[int], tokenizer: Any) -> Written:
    stop = next((i for i, token in enumerate(ids) if token in ends), None)
    new = [token for token in ids[:stop] if token not in tokenizer.all_special_ids]
    text = tokenizer.decode(new, skip_special_tokens=True).strip()
    return Written(text, len(new), finished=stop is not None)
