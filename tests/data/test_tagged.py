"""Columns of words and tags: found by name, read whatever their form."""

from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from nlp_finetune.data import tagged
from nlp_finetune.errors import InputError

NAMES = ["O", "B-PER", "I-PER"]


def data(features: Features | None = None, **columns: list[Any]) -> Dataset:
    size = len(next(iter(columns.values())))
    if features is not None:
        features = Features({**features, "row": Value("int64")})
    return Dataset.from_dict({**columns, "row": list(range(1, size + 1))}, features=features)


def tags(rows: Dataset, *, names: list[str] | None = None) -> list[list[str]]:
    text, label = tagged.find(rows, None, None)
    spaced = tagged.has_spaced_tags(rows, label)
    found = tagged.read_words(rows, text, "train", unit=tagged.unit(rows, text), spaced=spaced)
    if tagged.marks_spans(rows, label):
        return tagged.read_spans(rows, label, "train", found)
    return tagged.read_tags(rows, label, "train", found, names=names)


def test_word_lists_are_found_before_texts_and_tags_before_other_lists() -> None:
    rows = data(
        text=["Ada saw"], spans=[["PER: Ada"]], langs=[["en", "en"]], tokens=[["Ada", "saw"]], ner_tags=[["O", "O"]]
    )
    assert tagged.find(rows, None, None) == ("tokens", "ner_tags")


def test_a_text_goes_with_spans() -> None:
    rows = data(id=[1], text=["Ada saw"], entities=[[{"start": 0, "end": 3, "label": "PER"}]])
    assert tagged.find(rows, None, None) == ("text", "entities")


def test_named_columns_are_taken_and_missing_ones_refused() -> None:
    rows = data(a=[["x"]], b=[["O"]])
    assert tagged.find(rows, "a", "b") == ("a", "b")
    with pytest.raises(InputError, match=r"task\.label: no column 'c'. Columns: a, b"):
        tagged.find(rows, "a", "c")
    with pytest.raises(InputError, match=r"Set task\.text=COLUMN"):
        tagged.find(rows, None, None)


def test_class_numbers_get_the_names_of_the_data_set() -> None:
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=NAMES))})
    assert tags(data(features, tokens=[["Ada", "B."]], ner_tags=[[1, 2]])) == [["B-PER", "I-PER"]]


def test_plain_numbers_need_names() -> None:
    rows = data(tokens=[["Ada", "B."]], tags=[[1, 2]])
    assert tags(rows, names=NAMES) == [["B-PER", "I-PER"]]
    with pytest.raises(
        InputError, match=r"row 1: the tags in column 'tags' are numbers without names.*task\.tag_names"
    ):
        tags(rows)
    with pytest.raises(InputError, match="holds the tag 2, but there are 2 names"):
        tags(rows, names=["O", "B-PER"])


def test_strings_of_words_and_tags_are_parted_by_spaces() -> None:
    assert tags(data(text=["Ada Byron, saw"], labels=["B-PER I-PER O"])) == [["B-PER", "I-PER", "O"]]


@pytest.mark.parametrize(
    "spans",
    [
        [{"start": 0, "end": 3, "label": "PER"}],
        [{"start": 0, "end": 3, "type": "PER", "text": "Ada"}],
        {"start": [0], "end": [3], "label": ["PER"]},
    ],
)
def test_spans_come_in_several_forms(spans: Any) -> None:
    assert tags(data(text=["Ada saw"], spans=[spans])) == [["B-PER", "O"]]


def test_a_file_in_which_no_row_has_a_span_has_no_entities() -> None:
    assert tags(data(text=["Ada saw"], spans=[[]])) == [["O", "O"]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tokens": [["a"], ["b", "c"]], "tags": [["O"], ["O"]]}, "row 2: 2 words, but 1 tags"),
        ({"tokens": [["a"], None], "tags": [["O"], ["O"]]}, "row 2: column 'tokens' is empty"),
        ({"tokens": [["a"], ["b"]], "tags": [["O"], None]}, "row 2: no tags"),
        ({"tokens": [["a"], [None]], "tags": [["O"], ["O"]]}, "row 2: column 'tokens' holds None among its words"),
        ({"tokens": [[1], [2]], "tags": [["O"], ["O"]]}, "row 1: column 'tokens' holds 1 among its words"),
        ({"tokens": [["a"], ["b"]], "tags": [["O"], [" "]]}, "row 2: column 'tags' holds ' ', which is no tag"),
        ({"text": [1.5, 2.5], "tags": [["O"], ["O"]]}, "holds 1.5 in row 1: expected a text or a list of words"),
        ({"text": ["a", "b"], "spans": [[{"start": 0, "end": 1}], []]}, "row 1: .*a span is {start, end, label}"),
        ({"text": ["a", "b"], "spans": [[{"start": 0, "end": 1, "label": "X"}], None]}, "row 2: no spans"),
        ({"text": ["a", "b"], "label": [1, 2]}, "row 1: column 'label' holds 1, not a tag for every word"),
    ],
)
def test_a_bad_row_is_named(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tags(data(**columns))


def test_lists_of_single_characters_are_known_as_such() -> None:
    assert tagged.unit(data(tokens=[["北", "京", "A", "b"]]), "tokens") == "characters"
    assert tagged.unit(data(tokens=[["I", "am", "here"]]), "tokens") == "words"
    assert tagged.unit(data(text=["北京"]), "text") == "words"


def test_listed_words_keep_their_places_in_the_joined_text() -> None:
    found = tagged.read_words(data(tokens=[["New York", "", "is"]]), "tokens", "train", unit="words")
    assert found.texts == ["New York  is"]
    assert found.of(0) == ["New York", "", "is"]
    assert found.listed == [True]
