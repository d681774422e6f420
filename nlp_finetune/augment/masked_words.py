"""Words replaced by what a masked language model finds likely in their place.

The model runs on the CPU, on one text at a time, so that a row is changed alike wherever it is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from nlp_finetune.augment.texts import LABEL, SPANS, WORDS, chosen_places, free_places, in_case_of, word_parts
from nlp_finetune.augment.words import Word, join
from nlp_finetune.data.masking import mask_token
from nlp_finetune.data.words import is_cjk
from nlp_finetune.errors import InputError
from nlp_finetune.models import checkpoint as checkpoints
from nlp_finetune.models.loading import check_family, load_config, load_model, new_parameters
from nlp_finetune.models.tokenizer import load_tokenizer

_LIKELIEST = 10
"""Words among which one is drawn, as likely as the model finds it."""
_DIGITS = 3
"""Scores are compared so exactly: sums of floating-point numbers differ beyond that between machines."""
_LONGEST = 512
_MARKERS = ("##", "\u0120", "\u2581")
"""What tells pieces apart: `##` goes on with a word (BERT); the others begin one (GPT-2's kin, SentencePiece)."""


@dataclass(frozen=True)
class MaskedWords:
    """Hides words and draws one of the likeliest others for each (Kobayashi 2018, Contextual Augmentation)."""

    share: float
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    vocabulary: Vocabulary = field(repr=False)
    name: ClassVar[str] = "masked_lm"
    keeps: ClassVar[frozenset[str]] = frozenset({LABEL, SPANS, WORDS})

    def __call__(self, words: Sequence[Word], random: np.random.Generator) -> list[Word]:
        found = list(words)
        places = [place for place in free_places(found) if word_parts(found[place].text)[1].isalpha()]
        places = chosen_places(places, self.share, random)
        mask = self.tokenizer.mask_token
        if not places or any(mask in word.text for word in found):
            return found
        hidden = list(found)
        for place in places:
            before, _, after = word_parts(found[place].text)
            hidden[place] = found[place]._replace(text=f"{before}{mask}{after}")
        # A text longer than the model takes loses masks at its end: those words stay.
        for place, scores in zip(places, self._scores(join(hidden)[0]), strict=False):
            before, core, after = word_parts(found[place].text)
            new = self.vocabulary.draw(core, scores, random)
            found[place] = found[place]._replace(text=f"{before}{in_case_of(core, new)}{after}")
        return found

    def _scores(self, text: str) -> np.ndarray:
        """Logits `[masks, vocabulary]` of the masks of a text, as far as the model reads it."""
        import torch

        most = min(self.tokenizer.model_max_length, _LONGEST)
        inputs = self.tokenizer(text, truncation=True, max_length=most, return_tensors="pt")
        masks = inputs["input_ids"][0] == self.tokenizer.mask_token_id
        with torch.inference_mode():
            logits: np.ndarray = self.model(**inputs).logits[0, masks].float().numpy()
        return logits


@dataclass(frozen=True)
class Vocabulary:
    """Tokens that are a whole word of letters (`words`) or one Chinese or Japanese character (`characters`)."""

    words: dict[int, str]
    characters: dict[int, str]

    def draw(self, word: str, scores: np.ndarray, random: np.random.Generator) -> str:
        """One of the likeliest of these other than `word`, which is one character or not; `scores` `[vocabulary]`."""
        kind = self.characters if len(word) == 1 and is_cjk(word) else self.words
        ids = np.fromiter(kind, dtype=np.int64, count=len(kind))
        rounded = np.round(scores[ids].astype(np.float64), _DIGITS)
        order = np.argsort(-rounded, kind="stable")[: _LIKELIEST + 1]
        likely = [at for at in order if kind[int(ids[at])].lower() != word.lower()][:_LIKELIEST]
        if not likely:
            return word
        weights = np.exp(rounded[likely] - rounded[likely[0]])
        return kind[int(ids[random.choice(likely, p=weights / weights.sum())])]


def vocabulary(tokenizer: Any) -> Vocabulary:
    """The tokens of a tokenizer that can stand for a word."""
    tokens: dict[str, int] = tokenizer.get_vocab()
    marker = next((m for m in _MARKERS if any(token.startswith(m) for token in tokens)), None)
    words, characters = {}, {}
    for token, number in sorted(tokens.items(), key=lambda pair: pair[1]):
        goes_on = token.startswith("##") if marker in (None, "##") else not token.startswith(str(marker))
        text = tokenizer.convert_tokens_to_string([token]).strip()
        if number in tokenizer.all_special_ids or not text.isalpha():
            continue
        if len(text) == 1 and is_cjk(text):
            if not (marker == "##" and goes_on):
                characters[number] = text
        elif not goes_on and len(text) > 1 and not any(map(is_cjk, text)):
            words[number] = text
    return Vocabulary(words, characters)


def load(given: str, *, share: float, say: Callable[[str], None]) -> MaskedWords:
    """The function with the checkpoint `given`: a Hub id, a folder, a run, or one inside a package.

    Raises `InputError` where that is no pretrained masked language model.
    """
    checkpoint = checkpoints.resolve(given)
    if checkpoint.kind == "scratch":
        raise InputError(f"augment.masked_lm_checkpoint {given}: has learned nothing yet; take a pretrained one.")
    config = load_config(checkpoint, overrides={}, edits={})
    check_family(config, auto_class="AutoModelForMaskedLM")
    tokenizer = load_tokenizer(checkpoint, tokenizer=None, texts=None, config=config)
    mask_token(tokenizer)
    model = load_model(
        checkpoint,
        auto_class="AutoModelForMaskedLM", config=config, tokenizer=tokenizer,
        head_init="default", dropout=None, activation=None, seed=0, say=lambda _: None,
    )  # fmt: skip
    if missing := new_parameters(model):
        raise InputError(
            f"augment.masked_lm_checkpoint {given}: was not trained to find hidden words, it lacks "
            f"{sorted(missing)[0]}. Take one that was, or a run of masked_lm."
        )
    words = vocabulary(tokenizer)
    say(f"augment.masked_lm: {given} on the CPU, {len(words.words):,} words and {len(words.characters):,} characters")
    return MaskedWords(share, model.eval().requires_grad_(False), tokenizer, words)
