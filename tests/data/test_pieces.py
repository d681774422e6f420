"""Words and pieces: aligned, windowed, batched, and put together again."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, PreTrainedTokenizerFast

from nlp_finetune.data import pieces
from nlp_finetune.data.pieces import WordCollator, WordTags
from nlp_finetune.data.words import joined, split
from nlp_finetune.errors import InputError
from nlp_finetune.models.vocabulary import fit

# isort: split
from transformers import BertTokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "un", "##like", "##ly", "a", "b", "c", "1"]


@pytest.fixture(scope="module")
def bert() -> PreTrainedTokenizerFast:
    return BertTokenizer(vocab={word: i for i, word in enumerate(VOCABULARY)})


@pytest.fixture(scope="module")
def gpt2() -> PreTrainedTokenizerFast:
    return fit(lambda: ["the cat sat. the cat..."] * 9, GPT2Config(vocab_size=300), lambda _: None)


def row(words: list[str], tags: list[int] | None = None) -> dict[str, list[Any]]:
    text, offsets = joined(words, "words")
    return rows(text, offsets, tags)


def rows(text: str, offsets: list[tuple[int, int]], tags: list[int] | None = None) -> dict[str, list[Any]]:
    columns = {"text": [text], "starts": [[a for a, _ in offsets]], "ends": [[b for _, b in offsets]]}
    return {**columns, "tags": [tags]} if tags is not None else columns


def encode(given: dict[str, list[Any]], tokenizer: Any, **settings: Any) -> dict[str, list[Any]]:
    return pieces.encode(given, tokenizer, **{"max_length": 64, "stride": 0, "spaced": False, **settings})


def test_the_first_piece_of_a_word_has_its_tag(bert: Any) -> None:
    encoded = encode(row(["playing", "a", "unlikely"], [0, 1, 3]), bert)
    assert encoded["words"] == [[-1, 0, -1, 1, 2, -1, -1, -1]]
    assert encoded["labels"] == [[-100, 0, -100, 1, 3, -100, -100, -100]]
    assert encoded["length"] == [8]


def test_without_tags_there_are_no_labels(bert: Any) -> None:
    assert "labels" not in encode(row(["a"]), bert)


def test_spaced_words_are_words_to_the_tokenizer_too(bert: Any) -> None:
    text = "a1b"
    encoded = encode(rows(text, split(text, "characters")), bert, spaced=True)
    assert encoded["words"] == [[-1, 0, 1, 2, -1]]


def test_byte_level_pieces_that_hold_the_space_before_them_are_aligned(gpt2: Any) -> None:
    text = "the cat sat."
    encoded = encode(rows(text, split(text, "words")), gpt2)
    begins = [position for position, word in enumerate(encoded["words"][0]) if word >= 0]
    assert [gpt2.decode(encoded["input_ids"][0][position]).strip() for position in begins] == ["the", "cat", "sat", "."]


def test_words_that_share_a_piece_are_counted_to_it(gpt2: Any) -> None:
    text = "cat..."
    encoded = encode(rows(text, split(text, "words")), gpt2)
    assert gpt2.decode(encoded["input_ids"][0][-1]) == "..."
    assert encoded["covered"][0][-1] == 3
    assert sum(encoded["covered"][0]) == 4


def test_every_word_of_a_long_row_belongs_to_one_window(bert: Any) -> None:
    words = ["playing", "a", "unlikely", "b", "c"] * 20
    encoded = encode(row(words, list(range(100))), bert, max_length=16, stride=4)
    assert len(encoded["words"]) > 5
    assert max(encoded["length"]) <= 16
    owned = [word for window in encoded["words"] for word in window if word >= 0]
    assert owned == list(range(100))
    labels = [label for window in encoded["labels"] for label in window if label >= 0]
    assert labels == list(range(100))
    assert set(encoded["source"]) == {0}


def test_a_word_belongs_to_the_window_that_shows_most_around_it(bert: Any) -> None:
    encoded = encode(row(["a"] * 12), bert, max_length=10, stride=4)
    assert [[word for word in window if word >= 0] for window in encoded["words"]] == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10, 11],
    ]


def test_a_word_longer_than_a_window_is_kept_once(bert: Any) -> None:
    encoded = encode(row(["un" + "like" * 30, "a"]), bert, max_length=10, stride=2)
    assert [word for window in encoded["words"] for word in window if word >= 0] == [0, 1]


def test_several_rows_keep_apart(bert: Any) -> None:
    one, two = row(["a"] * 20, [0] * 20), row(["b"], [1])
    both = {name: one[name] + two[name] for name in one}
    encoded = encode(both, bert, max_length=10, stride=2)
    assert encoded["source"][-1] == 1
    assert encoded["labels"][-1] == [-100, 1, -100]


def test_a_row_of_which_no_piece_is_left_has_no_window(bert: Any) -> None:
    assert encode(row(["\u200b"]), bert)["input_ids"] == []
    assert encode(row([]), bert)["input_ids"] == []


def test_lengths_are_those_before_windows(bert: Any) -> None:
    assert pieces.lengths(row(["playing"] * 50), bert, spaced=False) == [102]


def test_a_tokenizer_without_offsets_is_refused(bert: Any) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="Slow does not tell which characters"):
        encode(row(["a"]), Slow())


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_batch_is_padded_on_the_tokenizer_s_side(bert: Any, side: str) -> None:
    tokenizer = BertTokenizer(vocab=bert.get_vocab(), padding_side=side)
    encoded = encode({k: v + row(["b"] * 3, [1, 2, 2])[k] for k, v in row(["a"], [1]).items()}, tokenizer)
    windows = [{name: values[i] for name, values in encoded.items()} for i in range(2)]
    batch = WordCollator(tokenizer)(windows)
    assert {
        name: tuple(batch[name].shape) for name in ("input_ids", "attention_mask", "words", "covered", "labels")
    } == dict.fromkeys(("input_ids", "attention_mask", "words", "covered", "labels"), (2, 5))
    padding = batch["attention_mask"] == 0
    assert (batch["labels"][padding] == -100).all()
    assert (batch["words"][padding] == -1).all()
    assert (batch["words"] >= 0).sum() == 4


def test_predicted_tags_come_by_word() -> None:
    batch = {"words": torch.tensor([[-1, 0, -1, 1]]), "covered": torch.tensor([[0, 1, 0, 3]])}
    logits = torch.zeros(1, 4, 3)
    logits[0, 1, 2] = logits[0, 3, 1] = 9.0
    (found,) = pieces.word_tags(logits, batch)
    assert found.words.tolist() == [0, 1, 2, 3]
    assert found.tags.tolist() == [2, 1, 2, 2]
    assert found.scores.min() > 0.99


def some(words: list[int], tags: list[int]) -> WordTags:
    return WordTags(np.array(words, np.int32), np.array(tags, np.int32), np.full(len(words), 0.5, np.float32))


def test_windows_are_put_together() -> None:
    tags, _ = pieces.whole(pieces.merged([some([0, 1], [1, 2]), some([2], [0])]), 3)
    assert tags == [1, 2, 0]


def test_a_row_without_windows_is_outside() -> None:
    assert pieces.whole(pieces.merged([]), 2)[0] == [0, 0]


def test_a_dropped_word_is_inside_only_where_the_entity_goes_on() -> None:
    assert pieces.whole(some([0, 2, 4], [1, 2, 0]), 5)[0] == [1, 2, 2, 0, 0]


def test_spans_are_in_characters_and_for_listed_rows_in_words_too() -> None:
    given = {"text": "Ada Byron saw", "starts": [0, 4, 10], "ends": [3, 9, 13], "listed": True}
    found = some([0, 1, 2], [2, 2, 0])
    assert pieces.spans(found, given, ["PER"]) == [
        {"start": 0, "end": 9, "label": "PER", "text": "Ada Byron", "score": 0.5, "first_word": 0, "end_word": 2}
    ]
    assert "first_word" not in pieces.spans(found, {**given, "listed": False}, ["PER"])[0]
