"""Texts cut into words, spans into tags."""

import pytest

from nlp_finetune.data.words import Span, joined, split, tag_spans
from nlp_finetune.errors import InputError


def words(text: str, unit: str = "words") -> list[str]:
    return [text[start:end] for start, end in split(text, unit)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mara Teliç's 2nd shop.", ["Mara", "Teliç", "'", "s", "2nd", "shop", "."]),
        ("snake_case...", ["snake_case", ".", ".", "."]),
        ("我在IBM工作3年", ["我", "在", "IBM", "工", "作", "3", "年"]),
        ("トヨタ car", ["ト", "ヨ", "タ", "car"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("cafe\u0301 \u200b", ["cafe\u0301", "\u200b"]),
        (" \t\n", []),
        ("", []),
    ],
)
def test_words_are_runs_of_letters_and_single_signs(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_characters_are_all_but_white_space() -> None:
    assert words("a 10年", "characters") == ["a", "1", "0", "年"]


def test_a_list_is_joined_with_spaces_and_characters_without() -> None:
    assert joined(["New York", "is"], "words") == ("New York is", [(0, 8), (9, 11)])
    assert joined(["北", "京"], "characters") == ("北京", [(0, 1), (1, 2)])


def tagged(text: str, *spans: tuple[int, int, str]) -> list[str]:
    return tag_spans([Span(*span) for span in spans], split(text, "words"), text, where="train: row 3")


def test_spans_become_iob2_tags_in_any_order() -> None:
    assert tagged("Ada Byron saw Rome", (14, 18, "LOC"), (0, 9, "PER")) == ["B-PER", "I-PER", "O", "B-LOC"]


def test_neighbouring_spans_stay_apart() -> None:
    assert tagged("Ada Byron", (0, 3, "PER"), (4, 9, "PER")) == ["B-PER", "B-PER"]


def test_white_space_at_the_ends_of_a_span_does_not_count() -> None:
    assert tagged("saw Rome today", (3, 9, "LOC")) == ["O", "B-LOC", "O"]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 30, "PER")], r"train: row 3: the span 0 to 30 \(PER\) is out of range; the text has 18 characters"),
        ([(-1, 3, "PER")], "out of range"),
        ([(9, 4, "PER")], "out of range"),
        ([(4, 4, "PER")], "is empty"),
        ([(3, 4, "PER")], "nothing but white space"),
        ([(0, 9, "PER"), (4, 9, "ORG")], r"0 to 9 \(PER, 'Ada Byron'\) and 4 to 9 \(ORG, 'Byron'\) overlap"),
        ([(0, 2, "PER")], "ends inside the word 'Ada'"),
        ([(1, 3, "PER")], "begins inside the word 'Ada'"),
        ([(0, 3, "")], "no label"),
    ],
)
def test_a_bad_span_is_named_with_its_row(spans: list[tuple[int, int, str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tagged("Ada Byron saw Rome", *spans)
