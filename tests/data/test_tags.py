"""Schemes of tags: detected, validated, converted."""

import pytest

from nlp_finetune.data import tags as iob2
from nlp_finetune.data.tags import TaggedRows, to_iob2
from nlp_finetune.errors import InputError


def rows(*sequences: str, split: str = "train") -> TaggedRows:
    tags = [sequence.split() for sequence in sequences]
    words = [[f"w{i}" for i in range(len(sequence))] for sequence in tags]
    return TaggedRows(split, [i + 11 for i in range(len(tags))], words, tags)


def converted(*sequences: str, repair: bool = False) -> tuple[str, list[str]]:
    scheme, (found,) = to_iob2([rows(*sequences)], repair=repair)
    return scheme, [" ".join(tags) for tags in found]


@pytest.mark.parametrize(
    ("scheme", "given", "expected"),
    [
        ("IOB2", "B-PER I-PER O B-PER B-PER", "B-PER I-PER O B-PER B-PER"),
        ("IOB1", "I-PER I-PER B-PER O I-LOC I-PER", "B-PER I-PER B-PER O B-LOC B-PER"),
        ("IO", "I-PER I-PER O I-LOC", "B-PER I-PER O B-LOC"),
        ("IO", "person person O place", "B-person I-person O B-place"),
        ("BIOES", "B-PER I-PER E-PER S-PER O S-LOC", "B-PER I-PER I-PER B-PER O B-LOC"),
        ("BMES", "B-PER M-PER E-PER B-PER E-PER O", "B-PER I-PER I-PER B-PER I-PER O"),
        ("BILOU", "B-PER L-PER U-PER O", "B-PER I-PER B-PER O"),
        ("IOB2", "B_PER I_PER O", "B-PER I-PER O"),
        ("IOB2", "B-PER.NAM I-PER.NAM O", "B-PER.NAM I-PER.NAM O"),
        ("IOB2", "O O", "O O"),
    ],
)
def test_a_scheme_is_detected_and_converted(scheme: str, given: str, expected: str) -> None:
    assert converted(given) == (scheme, [expected])


def test_the_scheme_of_all_splits_is_one() -> None:
    train, validation = rows("B-PER I-PER O B-LOC"), rows("O I-PER", split="validation")
    with pytest.raises(InputError, match=r"validation: row 11, word 2 \('w1'\): the tag I-PER continues no PER entity"):
        to_iob2([train, validation])


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        (
            ("B-PER O", "B-LOC I-PER"),
            r"row 12, word 2 \('w1'\): the tag I-PER continues no PER entity: it stands after B-LOC",
        ),
        (("B-PER O B-PER", "O I-PER"), "row 12, word 2.*stands after O.*look like IOB2"),
        (("I-PER O I-LOC I-LOC B-LOC", "O B-PER"), "row 12, word 2.*B-PER follows no PER entity.*look like IOB1"),
        (("B-PER E-PER S-LOC", "B-PER O"), "row 12, word 2.*stands after B-PER, whose entity is not ended"),
        (("B-PER E-PER", "O B-PER"), "row 12, word 2.*B-PER is not ended"),
        (("B-PER M-PER E-PER", "O M-PER E-PER"), "row 12, word 2.*M-PER continues no entity"),
        (("B-PER I-PER E-PER", "B-LOC M-LOC E-LOC"), "mix several schemes.*M-LOC at train row 12, word 2"),
        (("B-PER O", "place O"), "with and without a prefix.*place at train row 12, word 1"),
        (("NN VB", "DT NN"), "No word has the tag O"),
    ],
)
def test_a_tag_that_breaks_its_scheme_is_named(sequences: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        converted(*sequences)


def test_a_refusal_counts_the_bad_tags_and_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"There are 2 such tags.*task\.bad_tags=repair"):
        converted("B-PER B-LOC B-LOC O I-PER", "I-PER")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("B-PER B-PER O I-PER I-PER", "B-PER B-PER O B-PER I-PER"),
        ("B-PER E-PER E-PER S-LOC", "B-PER I-PER B-PER B-LOC"),
        ("B-PER E-PER O B-PER M-PER", "B-PER I-PER O B-PER I-PER"),
    ],
)
def test_bad_tags_can_be_repaired_and_are_counted(given: str, expected: str) -> None:
    scheme, found = converted(given, repair=True)
    assert found == [expected]
    assert "(1 tags that break it" in scheme


def test_needless_b_tags_of_iob1_are_taken_for_what_they_are() -> None:
    scheme, found = converted(*["I-PER O I-PER I-PER B-PER"] * 100, "O B-LOC")
    assert scheme.startswith("IOB1 (1 tags")
    assert found[-1] == "O B-LOC"


def test_types_are_sorted_and_tags_numbered_by_them() -> None:
    types = iob2.types([["O", "B-PER", "I-PER"], ["B-LOC"]])
    assert iob2.names(types) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_repair_begins_an_entity_where_none_goes_on() -> None:
    assert iob2.repaired([2, 2, 0, 4, 2, 1, 2]) == [1, 2, 0, 3, 1, 1, 2]


def test_entities_have_first_word_end_and_type() -> None:
    assert iob2.entities([1, 2, 0, 3, 3, 4, 1]) == [(0, 2, 0), (3, 4, 1), (4, 6, 1), (6, 7, 0)]
