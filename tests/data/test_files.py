"""One file, whatever its kind: the cells that are in it, or why it is no data file."""

import csv
import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from nlp_finetune.data.sources import read_file
from tests.data.reading import columns, notes, refusal

Write = Callable[[str, Any], str]


@pytest.mark.parametrize(("name", "d"), [("a.csv", ","), ("a.tsv", "\t")])
def test_cells_are_strings_exactly_as_written(write: Write, name: str, d: str) -> None:
    write(name, f"text{d}label\n007{d}NA\n 1.50 {d}\nnull{d}True\n")
    assert columns(name) == {
        "text": ["007", " 1.50 ", "null"],
        "label": ["NA", "", "True"],
        "row": [1, 2, 3],
    }


def test_rows_are_numbered_from_one_in_an_int64_column(write: Write) -> None:
    data, _ = read_file(write("a.csv", "text,label\na,1\nb,0\n"))
    assert data["row"][:] == [1, 2]
    assert data.features["row"] == Value("int64")


def test_a_column_called_row_is_renamed_and_that_is_said(write: Write) -> None:
    write("a.csv", "text,row,row_\na,7,8\n")
    assert columns("a.csv") == {"text": ["a"], "row__": ["7"], "row_": ["8"], "row": [1]}
    assert notes("a.csv") == ["a.csv: its column 'row' is called 'row__' here; 'row' is the row number"]


def test_a_text_file_is_one_row_per_line_that_is_not_blank(write: Write) -> None:
    write("a.txt", "one, two\n\n  \n\u2028three\tfour\r\n")
    assert columns("a.txt") == {"text": ["one, two", "\u2028three\tfour"], "row": [1, 2]}
    assert notes("a.txt") == ["a.txt: 2 blank lines left out"]


def test_the_column_of_a_text_file_can_be_named(write: Write) -> None:
    assert columns(write("a.txt", "one\ntwo\n"), columns=["sentence"])["sentence"] == ["one", "two"]


def test_a_text_file_with_a_delimiter_is_a_table(write: Write) -> None:
    assert columns(write("a.txt", "text\tlabel\na\t1\n"), delimiter="tab")["label"] == ["1"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_any_line_end_is_understood(write: Write, line_end: str) -> None:
    write("a.csv", line_end.join(["text,label", "a,1", "b,0", ""]))
    assert columns("a.csv")["label"] == ["1", "0"]


def test_characters_that_only_python_takes_for_line_ends_are_kept(write: Write) -> None:
    assert columns(write("a.csv", "text,label\na\u2028b\x85c\x0bd,1\n"))["text"] == ["a\u2028b\x85c\x0bd"]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.tsv.gz", "a.jsonl.gz", "a.txt.gz", "A.CSV.GZ"])
def test_gzipped_files_are_read_like_others(write: Write, name: str) -> None:
    lower = name.lower()
    text = '{"text": "a"}\n{"text": "b"}\n' if "json" in lower else "a\nb\n"
    text = "text\n" + text if ".csv" in lower or ".tsv" in lower else text
    assert columns(write(name, gzip.compress(text.encode(), mtime=0)))["text"] == ["a", "b"]


def test_a_long_cell_is_read_whole(write: Write) -> None:
    text = "word " * 60_000
    assert columns(write("a.csv", f'text,label\n"{text}, end",1\n'))["text"] == [f"{text}, end"]


def test_reading_leaves_the_cell_limit_of_the_csv_module_alone(write: Write) -> None:
    before = csv.field_size_limit()
    read_file(write("a.csv", 'text,label\n"a, b",1\n'))
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather", "a.parquet.gz"])
def test_tables_keep_their_types(write: Write, name: str, tmp_path: Path) -> None:
    table = pa.table({"text": ["007", None], "score": [1.5, 2.0], "kind": pa.array(["x", "x"]).dictionary_encode()})
    sink = pa.BufferOutputStream()
    if "parquet" in name:
        pyarrow.parquet.write_table(table, sink)
    else:
        writer = pa.ipc.new_stream if name == "a.arrow" else pa.ipc.new_file
        with writer(sink, table.schema) as out:
            out.write_table(table)
    raw = sink.getvalue().to_pybytes()
    write(name, gzip.compress(raw, mtime=0) if name.endswith(".gz") else raw)
    assert columns(name) == {"text": ["007", None], "score": [1.5, 2.0], "kind": ["x", "x"], "row": [1, 2]}


def test_label_names_of_a_saved_data_set_are_kept(write: Write, tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    Dataset.from_dict({"text": ["a"], "label": [1]}, features=features).to_parquet("a.parquet")
    data, _ = read_file("a.parquet")
    assert data.features["label"].names == ["bad", "good"]


def test_the_index_of_a_pandas_frame_is_no_column(write: Write) -> None:
    import pandas

    pandas.DataFrame({"text": ["a", "b"]}, index=["i", "j"]).to_parquet("a.parquet")
    assert columns("a.parquet") == {"text": ["a", "b"], "row": [1, 2]}


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_a_broken_table_is_refused(write: Write, name: str) -> None:
    assert f"{name} is not a whole" in refusal(write(name, b"PAR1 and no more"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("columns", ["a"]), ("delimiter", "tab"), ("quoting", "none"), ("encoding", "cp1252")],
)
def test_settings_for_text_are_refused_for_tables(write: Write, setting: str, value: Any) -> None:
    pyarrow.parquet.write_table(pa.table({"a": [1]}), "a.parquet")
    assert f"data.{setting} describes delimited text" in refusal("a.parquet", **{setting: value})


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.csv", "", "a.csv is empty"),
        ("a.csv", "\ufeff\n \n", "a.csv is empty"),
        ("a.csv", "text,label\n", "a.csv has a header and no data rows"),
        ("a.jsonl", "\n", "a.jsonl is empty"),
        ("a.csv.gz", b"", "a.csv.gz is empty"),
        ("a.csv.gz", b"no gzip", "a.csv.gz is not a whole gzip file"),
        ("a.csv.gz", gzip.compress(b"text\n" + bytes(range(32, 127)) * 9, mtime=0)[:-9], "is not a whole gzip file"),
        ("a.csv", b"PK\x03\x04....", "a.csv is not a text file"),
        ("a.odt", "a B\n", "the kind of file cannot be told from its name"),
    ],
)
def test_a_file_without_rows_is_refused(write: Write, name: str, content: Any, what: str) -> None:
    assert what in refusal(write(name, content))


def test_a_missing_file_is_refused_with_names_like_it(write: Write) -> None:
    write("reviews.csv", "text\na\n")
    message = refusal("reveiws.csv")
    assert "reveiws.csv does not exist" in message
    assert "Did you mean reviews.csv?" in message


def test_a_file_in_a_missing_folder_is_refused_with_the_folder(write: Write) -> None:
    assert "nor does the folder nowhere" in refusal("nowhere/a.csv")


def test_a_folder_is_no_file(write: Write) -> None:
    Path("a.csv").mkdir()
    assert "a.csv is a folder, not a file" in refusal("a.csv")


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(write: Write) -> None:
    memory = Path("/proc/self/mem")
    if not memory.exists():
        pytest.skip("no file here that nobody can read")
    Path("a.csv").symlink_to(memory)
    assert "a.csv cannot be read: " in refusal("a.csv")


def test_files_of_a_glob_are_one_table_in_sorted_order(write: Write) -> None:
    write("b.csv", "label,text\n0,second\n")
    write("a.csv", "text,label\nfirst,1\n")
    assert columns("*.csv") == {"text": ["first", "second"], "label": ["1", "0"], "row": [1, 2]}
    assert notes("*.csv") == ["*.csv: 2 files, 2 rows, numbered through in this order: a.csv, b.csv"]


def test_files_of_a_glob_with_other_columns_are_refused(write: Write) -> None:
    write("a.csv", "text,label\na,1\n")
    write("b.csv", "text,stars\na,1\n")
    assert "a.csv has the columns text, label, but b.csv has text, stars" in refusal("*.csv")


def test_files_of_a_glob_with_other_types_are_refused(write: Write) -> None:
    write("a.jsonl", '{"label": 1}\n')
    write("b.jsonl", '{"label": "x"}\n')
    assert "Column 'label' is int64 in a.jsonl and string in b.jsonl" in refusal("*.jsonl")


def test_a_glob_that_matches_nothing_is_refused(write: Write) -> None:
    assert "No file matches data/*.csv" in refusal("data/*.csv")


def test_a_file_whose_name_has_the_characters_of_a_glob_is_a_file(write: Write) -> None:
    assert columns(write("a[1].csv", "text\na\n"))["text"] == ["a"]


def test_the_fingerprint_is_that_of_content_and_format(write: Write) -> None:
    write("a.csv", "text,label\na,1\n")
    write("same.csv", "text,label\na,1\n")
    write("other.csv", "text,label\na,2\n")
    prints = [read_file(name)[0]._fingerprint for name in ("a.csv", "same.csv", "other.csv")]
    prints.append(read_file("a.csv", columns=["x", "y"])[0]._fingerprint)
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_a_hundred_thousand_quoted_rows_take_about_a_second(write: Write) -> None:
    rows = (f'"a review, with ""quotes"" and number {i}",{i % 3}\n' for i in range(100_000))
    write("a.csv", "text,label\n" + "".join(rows))
    start = time.perf_counter()
    data, _ = read_file("a.csv")
    # Half a second on two quiet cores; the bound leaves room for busy ones.
    assert time.perf_counter() - start < 5
    assert data[99_999] == {"text": 'a review, with "quotes" and number 99999', "label": "0", "row": 100_000}
