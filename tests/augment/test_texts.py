"""Each function of `augment` by what it does and by what it says it keeps."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from nlp_finetune.augment.synonyms import Synonyms
from nlp_finetune.augment.texts import (
    FUNCTIONS,
    NEIGHBOURS,
    WORDS,
    Case,
    Delete,
    Insert,
    Punctuation,
    Swap,
    Synonym,
    TextChange,
    TextFunction,
    Typo,
    in_case_of,
)
from nlp_finetune.augment.words import Word, join, split

TABLE = Synonyms({"good": ("fine", "nice"), "soup": ("broth",), "高兴": ("开心", "快活"), "我": ("俺", "本人")})
TEXTS = (
    "The soup was good, worth  the wait.\nAnd it cost ($5 million) today!",
    "我今天很高兴、用GPT 4写字。 我们走吧",
    "one",
    "good good good good",
    " leading and trailing \n",
)
DRAWS = 40


def made(function: type[TextFunction], share: float) -> TextFunction:
    return function(share, TABLE) if function in (Synonym, Insert) else function(share)  # type: ignore[call-arg]


def each(share: float) -> list[TextFunction]:
    return [made(function, share) for function in FUNCTIONS]


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng([7, seed])


def is_subsequence(part: str, whole: str) -> bool:
    characters = iter(whole)
    return all(character in characters for character in part)


@pytest.mark.parametrize("text", [*TEXTS, "", "\n\t "])
def test_a_text_in_words_is_the_text_again(text: str) -> None:
    assert join(split(text))[0] == text
    spans = [(4, 8), (9, 12)] if len(text) > 12 else []
    words = split(text, spans)
    assert join(words)[0] == text
    assert [word.text for word in words[:-1] if word.fixed] == [text[a:b] for a, b in spans]


def test_a_text_with_chinese_characters_is_taken_by_characters_and_others_by_spaces() -> None:
    assert [word.text for word in split("我用GPT4写。")] == ["我", "用", "GPT4", "写", "。", ""]
    assert [word.text for word in split("I can't, said he.")] == ["I", "can't,", "said", "he.", ""]


@pytest.mark.parametrize("function", each(0.5), ids=lambda f: f.name)
@pytest.mark.parametrize("text", TEXTS)
def test_a_function_depends_on_its_generator_alone_and_leaves_its_words_as_they_are(
    function: TextFunction, text: str
) -> None:
    words = split(text)
    before = list(words)
    np.random.seed(1)
    one = function(words, random(3))
    np.random.seed(2)
    assert function(words, random(3)) == one
    assert words == before


@pytest.mark.parametrize("function", each(0.0), ids=lambda f: f.name)
@pytest.mark.parametrize("text", TEXTS)
def test_a_share_of_zero_changes_nothing(function: TextFunction, text: str) -> None:
    assert TextChange([function]).text(text, random(0)) == text


@pytest.mark.parametrize("function", each(0.5), ids=lambda f: f.name)
def test_every_function_changes_an_english_text(function: TextFunction) -> None:
    change = TextChange([function])
    assert any(change.text(TEXTS[0], random(i)) != TEXTS[0] for i in range(5))


@pytest.mark.parametrize("function", each(0.5), ids=lambda f: f.name)
@pytest.mark.parametrize("text", TEXTS[:2])
def test_fixed_words_stay_and_keep_their_order(function: TextFunction, text: str) -> None:
    words = [word._replace(fixed=word.fixed or i % 3 == 0) for i, word in enumerate(split(text))]
    for draw in range(DRAWS):
        changed = function(words, random(draw))
        assert [w.text for w in changed if w.fixed] == [w.text for w in words if w.fixed]


@pytest.mark.parametrize("function", each(0.5), ids=lambda f: f.name)
@pytest.mark.parametrize("text", TEXTS[:2])
def test_functions_keep_the_places_of_words_if_and_only_if_they_say_so(function: TextFunction, text: str) -> None:
    words = [Word(" ", f"{word.text}{i}" if word.text.isalpha() else word.text) for i, word in enumerate(split(text))]
    moved = False
    for draw in range(DRAWS):
        changed = function(words, random(draw))
        moved |= len(changed) != len(words)
        # A number at the end of each word tells which it was.
        tails = [(re.sub(r"\D", "", w.text), re.sub(r"\D", "", c.text)) for w, c in zip(words, changed, strict=False)]
        moved |= any(a != b for a, b in tails)
    assert moved == (WORDS not in function.keeps)


@pytest.mark.parametrize("function", each(0.9), ids=lambda f: f.name)
@pytest.mark.parametrize("text", TEXTS)
def test_no_function_leaves_a_text_empty(function: TextFunction, text: str) -> None:
    assert all(TextChange([function]).text(text, random(draw)).strip() for draw in range(DRAWS))


@pytest.mark.parametrize("text", TEXTS)
def test_an_answer_stays_and_is_where_it_is_said_to_be(text: str) -> None:
    change = TextChange(each(0.4))
    for draw in range(DRAWS):
        start = draw % max(1, len(text) - 1)
        end = min(len(text), start + 1 + draw % 5)
        changed, place = change.around(text, (start, end), random(draw))
        assert changed[place : place + end - start] == text[start:end]


def test_delete_leaves_the_other_words_in_order() -> None:
    for draw in range(DRAWS):
        found = TextChange([Delete(0.3)]).text(TEXTS[0], random(draw)).split()
        words = iter(TEXTS[0].split())
        assert all(word in words for word in found)
        assert is_subsequence(TextChange([Delete(0.3)]).text(TEXTS[1], random(draw)), TEXTS[1])


def test_delete_drops_about_the_share_of_the_words() -> None:
    words = [Word(" ", "word")] * 2000
    assert 1700 < len(Delete(0.1)(words, random(0))) < 1880


def test_swap_keeps_the_words_and_moves_some() -> None:
    found = TextChange([Swap(0.5)]).text(TEXTS[0], random(0))
    assert Counter(found.split()) == Counter(TEXTS[0].split())
    assert found.split() != TEXTS[0].split()


def test_insert_takes_synonyms_where_there_is_a_table_and_copies_where_there_is_none() -> None:
    before = set(TEXTS[0].split())
    copies = [set(TextChange([Insert(0.5)]).text(TEXTS[0], random(i)).split()) for i in range(DRAWS)]
    assert all(words <= before for words in copies)
    others = [set(TextChange([Insert(0.5, TABLE)]).text(TEXTS[0], random(i)).split()) for i in range(DRAWS)]
    assert set().union(*others) - before == {"broth", "fine,", "nice,"}


def test_synonym_keeps_marks_and_case() -> None:
    found = {TextChange([Synonym(0.999, TABLE)]).text("GOOD, (Soup)!", random(i)) for i in range(DRAWS)}
    assert found == {"FINE, (Broth)!", "NICE, (Broth)!"}
    assert [in_case_of(model, "fine") for model in ("good", "Good", "GOOD")] == ["fine", "Fine", "FINE"]


def test_chinese_words_are_replaced_by_as_many_characters() -> None:
    found = {TextChange([Synonym(0.999, TABLE)]).text("我很高兴", random(i)) for i in range(DRAWS)}
    assert found == {"俺很开心", "俺很快活"}


def test_a_typo_is_the_key_beside_and_one_a_word() -> None:
    for draw in range(DRAWS):
        before, after = TEXTS[0], TextChange([Typo(0.5)]).text(TEXTS[0], random(draw))
        wrong = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert all(b.lower() in NEIGHBOURS[a.lower()] and a.isupper() == b.isupper() for a, b in wrong)
        pairs = zip(before.split(), after.split(), strict=True)
        assert all(sum(a != b for a, b in zip(x, y, strict=True)) <= 1 for x, y in pairs)


def test_keys_that_touch_are_neighbours_both_ways() -> None:
    assert set(NEIGHBOURS["g"]) == set("ftyhbv")
    assert set(NEIGHBOURS["q"]) == set("wa")
    assert all(key in NEIGHBOURS[other] for key, others in NEIGHBOURS.items() for other in others)


def test_case_changes_nothing_but_the_case() -> None:
    for draw in range(DRAWS):
        assert TextChange([Case(0.5)]).text(TEXTS[0], random(draw)).lower() == TEXTS[0].lower()


@pytest.mark.parametrize("text", TEXTS[:2])
def test_punctuation_only_adds_marks_of_the_script(text: str) -> None:
    marks = ".,;:?!" if text is TEXTS[0] else "。，；：？！、"  # noqa: RUF001
    for draw in range(DRAWS):
        found = TextChange([Punctuation(0.5)]).text(text, random(draw))
        assert is_subsequence(text, found)
        assert set(Counter(found) - Counter(text)) <= set(marks)


def test_delete_leaves_no_white_space_at_the_ends() -> None:
    found = {TextChange([Delete(0.5)]).text("one two three", random(i)) for i in range(DRAWS)}
    assert all(text == text.strip() for text in found)
