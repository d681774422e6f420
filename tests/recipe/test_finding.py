"""Which values of a recipe name files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlp_finetune.data import paths
from nlp_finetune.recipe import FILE_ENDINGS, names_a_file


def test_the_endings_are_those_that_can_be_read() -> None:
    assert {f".{suffix}" for suffix in paths.SUFFIXES} == set(FILE_ENDINGS)


@pytest.mark.parametrize("value", ["a.csv", "A.TSV", "a.jsonl.gz", "*.parquet", "folder/rows", "~rows"])
def test_what_is_written_like_a_file_is_one(value: str) -> None:
    assert names_a_file(value)
    assert paths.written_like_file(value)


@pytest.mark.parametrize("value", ["train", "validation", "train[:90%]", "train+test", "csv", "model.bin", ""])
def test_the_name_of_a_split_is_no_file(value: str) -> None:
    assert not names_a_file(value)
    assert not paths.written_like_file(value)


def test_what_exists_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows").write_text("x", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert names_a_file("rows")


def test_a_folder_called_like_a_split_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not names_a_file("train")
