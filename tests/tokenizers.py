"""Tokenizers small enough to read along with."""

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def letters(**settings: Any) -> PreTrainedTokenizerFast:
    """One token for each character: letters, digits, space, line end, `:` and `.`; `</s>` ends and pads texts."""
    characters = "abcdefghijklmnopqrstuvwxyz0123456789 \n:.!?"
    vocabulary = {"</s>": 0, "<unk>": 1, **{character: i + 2 for i, character in enumerate(characters)}}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    chosen = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", **settings}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        **{name: value for name, value in chosen.items() if value is not None},
    )
