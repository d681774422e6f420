"""Columns of sources and targets, their tokens, and the batches made of them."""

from typing import Any

import pytest
import torch
from datasets import Dataset

from nlp_finetune.data import source_targets
from nlp_finetune.data.source_targets import Columns, SourceTargetCollator
from nlp_finetune.errors import InputError
from tests.tokenizers import letters


def table(**columns: list[Any]) -> Dataset:
    rows = len(next(iter(columns.values())))
    return Dataset.from_dict({**columns, "row": list(range(1, rows + 1))})


def find(data: Dataset, **asked: Any) -> Columns:
    return source_targets.find(data, **{"source": None, "target": None, "references": None, **asked})[0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["id", "document", "summary"], ("document", "summary")),
        (["Article", "Highlights"], ("Article", "Highlights")),
        (["fname", "dialogue", "summary", "topic"], ("dialogue", "summary")),
        (["src", "tgt"], ("src", "tgt")),
    ],
)
def test_usual_names_are_found(names: list[str], expected: tuple[str, str]) -> None:
    found = find(table(**{name: ["x"] for name in names}))
    assert (found.source, found.target) == expected


def test_of_two_languages_the_user_says_which_is_written() -> None:
    data = table(translation=[{"de": "Hallo", "en": "Hello"}])
    with pytest.raises(InputError, match=r"task\.source=translation\.de task\.target=translation\.en"):
        find(data)
    found = find(data, source="translation.en", target="translation.de")
    read = source_targets.read(data, found, "train", labelled=True)
    assert (read["source"], read["target"]) == (["Hello"], ["Hallo"])


@pytest.mark.parametrize(
    ("columns", "asked", "message"),
    [
        ({"a": ["x"], "b": ["y"]}, {}, "No source column found by name. Columns: a, b. Set task.source=COLUMN"),
        ({"text": ["x"]}, {}, "No target column found by name"),
        ({"text": ["x"]}, {"target": "text"}, "No source column"),
        ({"text": ["x"], "title": ["y"]}, {"target": "titel"}, "task.target: no column 'titel'"),
        ({"text": ["x"]}, {"source": "text", "target": "text"}, "is the source already"),
    ],
)
def test_what_is_missing_is_named(columns: dict[str, list[str]], asked: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find(table(**columns), **asked)


def test_a_split_with_numbered_targets_has_several_references() -> None:
    columns = Columns("dialogue", "summary", [])
    test = table(dialogue=["x"], summary2=["two"], topic1=["t"], summary1=["one"], summary_10=["ten"])
    assert source_targets.reference_columns(test, columns) == ["summary1", "summary2", "summary_10"]
    assert source_targets.read(test, columns, "test", labelled=True)["references"] == [["one", "two", "ten"]]


def test_a_cell_may_hold_several_references_and_empty_ones_do_not_count() -> None:
    data = table(text=["x", "y"], title=[["a", " ", "b"], ["c"]])
    read = source_targets.read(data, Columns("text", "title", []), "train", labelled=True)
    assert (read["target"], read["references"]) == (["a", "c"], [["a", "b"], ["c"]])


def test_an_empty_target_is_named_by_its_row() -> None:
    data = table(text=["x", "y"], title=["a", " "])
    with pytest.raises(InputError, match=r"train: column 'title' is empty in 1 of 2 rows \(first: row 2\)"):
        source_targets.read(data, Columns("text", "title", []), "train", labelled=True)


def encode(on_long: str = "truncate", **lengths: int) -> dict[str, list[Any]]:
    rows = {"row": [1, 2], "source": ["abc", "abcdefgh"], "target": ["xyz", "x"]}
    sizes = {"max_length": 6, "max_target_length": 3, **lengths}
    return source_targets.encode(rows, letters(), prefix="to: ", on_long=on_long, **sizes)


def test_the_prefix_stands_before_every_source_and_long_ones_are_cut() -> None:
    assert [letters().decode(ids) for ids in encode()["input_ids"]] == ["to: ab", "to: ab"]


def test_a_target_that_is_cut_still_ends() -> None:
    end = letters().eos_token_id
    found = encode()
    assert [len(ids) for ids in found["labels"]] == [3, 2]
    assert all(ids[-1] == end for ids in found["labels"])
    assert found["target_length"] == [4, 2]
    assert found["length"] == [6, 6]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [({}, "row 1 has 7 tokens, more than task.max_length=6"), ({"max_length": 20}, "row 1: its target has 4 tokens")],
)
def test_long_rows_stop_the_run_where_that_is_asked_for(lengths: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode("error", **lengths)


def test_the_decoder_reads_the_labels_moved_behind_its_start_and_padding_is_not_learned() -> None:
    tokenizer = letters()
    rows = [{"input_ids": [5, 6, 7], "labels": [8, 9, 0]}, {"input_ids": [5], "labels": [4, 0]}]
    batch = SourceTargetCollator(tokenizer, start=3)(rows)
    assert batch["labels"].tolist() == [[8, 9, 0], [4, 0, -100]]
    assert batch["decoder_input_ids"].tolist() == [[3, 8, 9], [3, 4, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_the_decoders_input_is_what_the_model_makes_of_labels_itself(family: str) -> None:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    config = AutoConfig.for_model(
        family, vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, num_layers=1, d_ff=16, num_heads=2,
        d_kv=8, encoder_attention_heads=2, decoder_attention_heads=2, pad_token_id=0,
        decoder_start_token_id=3,
    )  # fmt: skip
    model = AutoModelForSeq2SeqLM.from_config(config)
    rows = [{"input_ids": [5, 6, 7], "labels": [8, 9, 1]}, {"input_ids": [5], "labels": [4, 1]}]
    batch = SourceTargetCollator(letters(), start=3)(rows)
    theirs = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    assert torch.equal(batch["decoder_input_ids"], theirs)
