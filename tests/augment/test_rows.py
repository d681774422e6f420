"""Rows that are changed when they are drawn: the plan's rows, labels that stay right, draws that can be repeated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from transformers import BertTokenizerFast

from nlp_finetune import inference
from nlp_finetune.augment.rows import ChangedTexts, numbered_windows
from nlp_finetune.augment.synonyms import Synonyms
from nlp_finetune.augment.texts import Case, Delete, Insert, Punctuation, Swap, Synonym, TextChange, Typo
from nlp_finetune.data.drawing import DrawnRows
from nlp_finetune.tasks import base

EVERYTHING = TextChange([Insert(0.2), Swap(0.2), Delete(0.2), Punctuation(0.2), Case(0.2), Typo(0.2)])
IN_PLACE = TextChange([Synonym(0.5, Synonyms({"lived": ("dwelt",)})), Case(0.5), Typo(0.5)])


@pytest.fixture
def tokenizer(tmp_path: Any) -> BertTokenizerFast:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:?!"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(words))
    return BertTokenizerFast(str(file))


def task(name: str, **options: Any) -> base.BaseTask:
    kind = base.find(name)
    return kind(kind.Options(**options))


def drawn(
    kind: base.BaseTask, rows: Dataset, tokenizer: Any, change: TextChange, probability: float = 1.0
) -> DrawnRows:
    encoded = inference.encode(kind, rows, tokenizer)
    changed = ChangedTexts(
        rows=rows,
        change=lambda row, random: kind.changed(row, change, random),
        encode=lambda batch: kind.encode(batch, tokenizer),
        probability=probability,
    )
    return DrawnRows(numbered_windows(encoded), transform=changed, seed=1)


def texts(count: int = 20) -> Dataset:
    said = [f"word{i} the soup was worth the wait and more" for i in range(count)]
    return Dataset.from_dict({"text": said, "label": [i % 3 for i in range(count)], "row": list(range(count))})


def test_windows_are_numbered_within_their_row() -> None:
    rows = Dataset.from_dict({"source": [0, 0, 2, 3, 3, 3]})
    assert numbered_windows(rows)["window"][:] == [0, 1, 0, 0, 1, 2]


def test_a_draw_is_the_same_whenever_it_is_drawn_and_another_in_each_epoch(tokenizer: Any) -> None:
    rows = drawn(task("text_classification"), texts(), tokenizer, EVERYTHING)
    first = rows.__getitems__([3, 4, 23])
    assert [rows[23], rows[3]] == [first[2], first[0]]
    assert rows[3]["input_ids"] != rows[23]["input_ids"]
    assert all(rows[draw]["labels"] == draw % 20 % 3 for draw in range(60))


@pytest.mark.parametrize(("probability", "fewest", "most"), [(1e-9, 0, 0), (0.5, 60, 140), (1.0, 180, 200)])
def test_about_the_asked_share_of_rows_is_changed(probability: float, fewest: int, most: int, tokenizer: Any) -> None:
    kind, data = task("text_classification"), texts()
    plain = inference.encode(kind, data, tokenizer)["input_ids"]
    rows = drawn(kind, data, tokenizer, EVERYTHING, probability)
    assert fewest <= sum(rows[draw]["input_ids"] != plain[draw % 20] for draw in range(200)) <= most


def test_every_draw_has_the_columns_of_the_rows_as_they_were(tokenizer: Any) -> None:
    kind = task("text_classification", on_long="window", max_length=12)
    rows = drawn(kind, texts(5), tokenizer, EVERYTHING)
    assert len(rows) > 5
    assert {frozenset(rows[draw]) for draw in range(3 * len(rows))} == {frozenset(rows.rows.column_names)}
    assert all(len(rows[draw]["input_ids"]) <= 12 for draw in range(3 * len(rows)))


def test_a_text_that_grows_beyond_the_longest_input_is_drawn_as_it_was(tokenizer: Any) -> None:
    kind, data = task("text_classification", on_long="error", max_length=40), texts(5)
    rows = drawn(kind, data, tokenizer, TextChange([Insert(0.99)]))
    assert [rows[i]["input_ids"] for i in range(5)] == inference.encode(kind, data, tokenizer)["input_ids"][:]


def test_tags_stay_with_their_words_and_entities_stay_as_they_are() -> None:
    text = "Ada Byron lived, in London ."
    starts, ends = [0, 4, 10, 15, 17, 20, 27], [3, 9, 15, 16, 19, 26, 28]
    row = {"text": text, "starts": starts, "ends": ends, "tags": [1, 2, 0, 0, 0, 3, 0]}
    kind = task("token_classification")
    seen = set()
    for draw in range(30):
        changed = kind.changed(row, IN_PLACE, np.random.default_rng(draw))
        words = [changed["text"][a:b] for a, b in zip(changed["starts"], changed["ends"], strict=True)]
        assert (words[0], words[1], words[5]) == ("Ada", "Byron", "London")
        assert len(words) == 7
        seen.add(words[2])
    assert "dwelt" in seen


def test_the_answer_is_what_the_changed_context_says_at_its_place(tokenizer: Any) -> None:
    context = "It rained. The bridge was built in 1889 by two brothers, and painted red."
    row = {"question": "When was it built?", "context": context, "answers": ["1889", "in 1889"], "starts": [35, 32]}
    kind = task("question_answering")
    contexts = set()
    for draw in range(30):
        changed = kind.changed(row, EVERYTHING, np.random.default_rng(draw))
        (start,) = changed["starts"]
        assert changed["context"][start : start + 4] == "1889"
        contexts.add(changed["context"])
    assert len(contexts) > 25


def test_a_question_without_an_answer_stays_without() -> None:
    row = {"question": "Who painted it?", "context": "It rained on the bridge.", "answers": [], "starts": []}
    changed = task("question_answering").changed(row, EVERYTHING, np.random.default_rng(0))
    assert (changed["answers"], changed["starts"]) == ([], [])
    assert changed["context"] != row["context"]


@pytest.mark.parametrize(
    ("name", "row", "untouched"),
    [
        ("seq2seq", {"source": "a b c d e f g h", "target": "a b c d e f g h"}, ["target"]),
        (
            "multiple_choice",
            {"question": "a b c d e f g", "options": ["a b c", "d e f"], "label": 1},
            ["options", "label"],
        ),
        ("text_embedding", {"text": "a b c d e f g", "text_pair": "h i j k l", "score": 0.5}, ["score"]),
    ],
)
def test_what_is_learned_is_left_alone(name: str, row: dict[str, Any], untouched: list[str]) -> None:
    changed = task(name).changed(row, EVERYTHING, np.random.default_rng(1))
    assert changed != row
    assert all(changed[column] == row[column] for column in untouched)
