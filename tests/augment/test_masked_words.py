"""Words that a masked language model replaces, by a tiny one whose preferences are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizerFast

from nlp_finetune.augment import masked_words
from nlp_finetune.augment.texts import TextChange
from nlp_finetune.augment.words import split
from nlp_finetune.errors import InputError

WORDS = "the soup was good fine broth ##s ##fine 12 ! , a 我 很 高 兴 开 心 ##心"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(" ")]
TEXT = "The SOUP was good, GOOD soup!"


def save(folder: Path, *, prefers: str | None = None, headless: bool = False) -> str:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16,
    )  # fmt: skip
    model: Any = BertModel(config) if headless else BertForMaskedLM(config)
    if prefers is not None:
        with torch.no_grad():
            model.cls.predictions.bias[VOCABULARY.index(prefers)] = 50.0
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def load(folder: Path, *, share: float = 0.5, **kind: Any) -> masked_words.MaskedWords:
    return masked_words.load(save(folder, **kind), share=share, say=lambda _: None)


def test_the_word_that_the_model_prefers_stands_in_with_marks_and_case_kept(tmp_path: Path) -> None:
    change = TextChange([load(tmp_path, share=0.999, prefers="broth")])
    assert change.text(TEXT, np.random.default_rng(0)) == "Broth BROTH broth broth, BROTH broth!"


def test_a_word_never_stands_in_for_itself(tmp_path: Path) -> None:
    change = TextChange([load(tmp_path, share=0.999, prefers="soup")])
    assert all(change.text("soup", np.random.default_rng(i)) != "soup" for i in range(20))


def test_only_whole_words_of_letters_stand_in_and_characters_for_characters(tmp_path: Path) -> None:
    function = load(tmp_path)
    assert set(function.vocabulary.words.values()) == {"the", "soup", "was", "good", "fine", "broth"}
    assert set(function.vocabulary.characters.values()) == set("我很高兴开心")
    found = {TextChange([function]).text("我很高兴 12!", np.random.default_rng(i)) for i in range(20)}
    assert len(found) > 10
    assert all(len(text) == 8 and text.endswith(" 12!") for text in found)


def test_words_keep_their_places_and_fixed_ones_stay(tmp_path: Path) -> None:
    words = [word._replace(fixed=word.fixed or i % 2 == 0) for i, word in enumerate(split(TEXT))]
    function = load(tmp_path, share=0.999)
    for draw in range(10):
        changed = function(words, np.random.default_rng(draw))
        assert [w.text for w in changed][::2] == [w.text for w in words][::2]
        assert [w.gap for w in changed] == [w.gap for w in words]


def test_the_same_generator_gives_the_same_words_and_torchs_own_is_left_alone(tmp_path: Path) -> None:
    change = TextChange([load(tmp_path)])
    before = torch.get_rng_state()
    first = [change.text(TEXT, np.random.default_rng(i)) for i in range(5)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(9)
    assert [change.text(TEXT, np.random.default_rng(i)) for i in range(5)] == first
    assert len(set(first)) > 1


def test_words_beyond_what_the_model_reads_stay(tmp_path: Path) -> None:
    text = " ".join(["soup"] * 40)
    found = TextChange([load(tmp_path, share=0.999)]).text(text, np.random.default_rng(0)).split()
    # 16 positions, two of them for special tokens.
    assert found[14:] == ["soup"] * 26
    assert "soup" not in found[:14]


def test_a_text_that_holds_a_mask_stays_as_it_is(tmp_path: Path) -> None:
    text = "the [MASK] was good"
    assert TextChange([load(tmp_path, share=0.999)]).text(text, np.random.default_rng(0)) == text


def test_a_checkpoint_that_does_not_find_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was not trained to find hidden words"):
        load(tmp_path, headless=True)
    with pytest.raises(InputError, match="has learned nothing yet"):
        masked_words.load("scratch:bert", share=0.1, say=lambda _: None)
