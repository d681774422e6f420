"""Delimited text: what separates cells, what quotes mean, and whether there is a header."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlp_finetune.data.sources import read_file
from tests.data.reading import columns, notes, refusal

Write = Callable[[str, Any], str]


@pytest.mark.parametrize(("delimiter", "name"), [("\t", "tab"), (";", "semicolon"), ("|", "pipe")])
def test_a_delimiter_that_is_not_the_suffixes_own_is_found_and_said(write: Write, delimiter: str, name: str) -> None:
    write("a.csv", f"text{delimiter}label\nGood, but slow{delimiter}1\nBad{delimiter}0\n")
    assert columns("a.csv")["text"] == ["Good, but slow", "Bad"]
    assert notes("a.csv") == [f"a.csv: cells are separated by {name}"]


@pytest.mark.parametrize(("given", "character"), [("pipe", "|"), ("|", "|"), ("^", "^"), ("\\t", "\t")])
def test_a_delimiter_can_be_given_by_name_or_character(write: Write, given: str, character: str) -> None:
    write("a.csv", f"text,x{character}label\na,b{character}1\n")
    assert columns("a.csv", delimiter=given) == {"text,x": ["a,b"], "label": ["1"], "row": [1]}


def test_a_delimiter_of_several_characters_is_refused(write: Write) -> None:
    assert "data.delimiter=||" in refusal(write("a.csv", "a||b\n1||2\n"), delimiter="||")


def test_one_column_needs_no_delimiter(write: Write) -> None:
    assert columns(write("a.csv", "text\nfine\nso so\n"))["text"] == ["fine", "so so"]


def test_quoted_cells_keep_line_ends_delimiters_and_doubled_quotes(write: Write) -> None:
    write("a.csv", 'text,label\n"one\ntwo, ""three""",pos\nplain "quote" inside,neg\n')
    assert columns("a.csv")["text"] == ['one\ntwo, "three"', 'plain "quote" inside']
    assert notes("a.csv") == []


def test_a_quoted_line_with_as_many_commas_as_a_row_stays_part_of_its_cell(write: Write) -> None:
    write("a.csv", 'text,label\n"first, really\nsecond",pos\nplain,neg\nother,pos\n')
    assert columns("a.csv")["text"] == ["first, really\nsecond", "plain", "other"]


def test_a_quoted_text_of_several_lines_in_an_only_column_is_one_cell(write: Write) -> None:
    assert columns(write("a.tsv", 'text\n"one\ntwo"\nthree\n'))["text"] == ["one\ntwo", "three"]


def test_lines_joined_by_stray_quotes_are_rows_if_their_labels_are_those_of_other_rows(write: Write) -> None:
    write("a.csv", 'text,label\nfine,1\n"great movie,1\nok,0\nbad film",0\nso so,0\n')
    assert columns("a.csv")["label"] == ["1", "1", "0", "0", "0"]


@pytest.mark.parametrize("rest", ["", '2\tc "d" e\n2\tf\n'])
def test_quotes_that_would_join_lines_are_text_and_that_is_said(write: Write, rest: str) -> None:
    write("a.tsv", f'label\ttext\n1\t"good\n0\tbad\n1\tfine"\n{rest}')
    rows = 3 + rest.count("\n")
    assert columns("a.tsv")["text"][:3] == ['"good', "bad", 'fine"']
    assert notes("a.tsv") == [
        f"a.tsv: read without quoting; as quoting, its quotes would join lines and leave {rows - 2} of {rows} rows"
    ]


def test_a_quote_that_never_closes_swallows_nothing(write: Write) -> None:
    write("a.csv", 'text,label\n"good,1\nbad,0\nfine,1\n')
    assert columns("a.csv")["text"] == ['"good', "bad", "fine"]


def test_an_unclosed_quote_is_refused_with_its_line_where_the_file_is_not_regular_without(
    write: Write,
) -> None:
    write("a.csv", 'text,label\n"a, b",1\n"c, d,0\ne,1\n')
    assert "a.csv, line 3: a quote opens in this row that never closes" in refusal("a.csv")


def test_quoting_none_keeps_all_quotes(write: Write) -> None:
    assert columns(write("a.csv", 'text,label\n"a",1\n'), quoting="none")["text"] == ['"a"']


def test_quoting_minimal_always_understands_quotes(write: Write) -> None:
    write("a.tsv", 'label\ttext\n1\t"good\n0\tbad"\n')
    assert columns("a.tsv", quoting="minimal")["text"] == ["good\n0\tbad"]


def test_quoting_minimal_takes_a_cell_that_goes_on_after_its_quote(write: Write) -> None:
    assert columns(write("a.csv", 'text,label\n"a, b" c,1\n'), quoting="minimal")["text"] == ["a, b c"]


def test_quoting_minimal_refuses_a_quote_that_never_closes(write: Write) -> None:
    write("a.csv", 'text,label\na,1\n"b,0\nc,1\n')
    assert "line 3: a quote opens in this row that never closes" in refusal("a.csv", quoting="minimal")


def test_an_unknown_quoting_is_refused(write: Write) -> None:
    assert "data.quoting=all: expected one of auto, none, minimal" in refusal(
        write("a.csv", "text\na\n"), quoting="all"
    )


def test_rows_with_a_wrong_number_of_cells_are_refused_with_their_lines(write: Write) -> None:
    write("a.csv", 'text,label\n"a\nb",1\nc\n"d",1,2\ne,1\nf\ng,1,1,1\n')
    message = refusal("a.csv")
    assert message.startswith("a.csv: 4 of 6 rows do not have the 2 cells of the header (text, label): ")
    assert "line 4 has 1, line 5 has 3, line 7 has 1, and 1 more." in message


def test_columns_name_the_cells_of_a_file_without_a_header(write: Write) -> None:
    write("a.csv", "good,1\nbad,0\n")
    assert columns("a.csv", columns=["text", "label"]) == {
        "text": ["good", "bad"],
        "label": ["1", "0"],
        "row": [1, 2],
    }


def test_columns_that_are_not_as_many_as_the_cells_are_refused(write: Write) -> None:
    message = refusal(write("a.csv", "a,b,c\nd,e,f\n"), columns=["text", "label"])
    assert "2 of 2 rows do not have the 2 cells of data.columns (text, label): line 1 has 3" in message


@pytest.mark.parametrize("names", [[], ["text", ""], ["text", "text"]])
def test_columns_without_a_name_or_twice_the_same_are_refused(write: Write, names: list[str]) -> None:
    assert "data.columns=" in refusal(write("a.csv", "a,b\n"), columns=names)


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("good film,pos\nbad film,neg\nfine,pos\n", "'pos' (column 2) occurs again in the rows below it"),
        ("good film,3.5\nbad film,1.25\n", "'3.5' (column 2) is a number, like all values below it"),
        ("same,same\nbad film,neg\n", "'same' stands in it twice"),
        ("it is " + "very " * 15 + "good,x\nbad,y\n", "(column 1) is 85 characters long"),
    ],
)
def test_a_first_line_that_looks_like_data_is_refused(write: Write, text: str, evidence: str) -> None:
    message = refusal(write("a.csv", text))
    assert evidence in message
    assert "data.columns=[text,label]" in message


def test_the_suggested_columns_follow_the_content(write: Write) -> None:
    assert "data.columns=[label,text]" in refusal(write("a.tsv", "ham\tcall me later\nham\tok then\n"))


def test_an_unnamed_column_with_content_is_refused(write: Write) -> None:
    assert "column 2 has no name" in refusal(write("a.csv", "text,,label\na,x,1\n"))


@pytest.mark.parametrize(
    "header",
    ["text,label", "sentence,gold", "Review Text,Stars", "text,0", "foo,bar", "文本,标签", "Unnamed,class_1"],
)
def test_ordinary_headers_pass(write: Write, header: str) -> None:
    data = columns(write("a.csv", f"{header}\ngood film,1\nbad film,0\ngood film,1\n"))
    assert list(data) == [*header.split(","), "row"]


def test_a_text_that_is_the_name_of_its_column_does_not_make_the_header_data(write: Write) -> None:
    rows = "".join(f"some words {i},{i % 2}\n" for i in range(100))
    assert len(columns(write("a.csv", f"phrase,mark\n{rows}phrase,1\n"))["row"]) == 101


def test_the_row_labels_that_pandas_writes_are_left_out_and_that_is_said(write: Write) -> None:
    write("a.csv", ",text,label\n0,a,1\n1,b,0\n")
    assert list(columns("a.csv")) == ["text", "label", "row"]
    assert notes("a.csv") == ["a.csv: the unnamed first column counts the rows, left out"]


def test_an_empty_column_without_a_name_is_left_out_and_that_is_said(write: Write) -> None:
    write("a.csv", "text,label,\na,1,\nb,0,\n")
    assert list(columns("a.csv")) == ["text", "label", "row"]
    assert notes("a.csv") == ["a.csv: column 3 has no name and no content, left out"]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("chnsenticorp/train.tsv", 9600),
        ("chnsenticorp/dev.tsv", 1200),
        ("chnsenticorp/test.tsv", 1200),
        ("glue/MRPC/train.tsv", 3667),
        ("glue/MRPC/dev.tsv", 408),
        ("glue/STS-B/train.tsv", 5749),
        ("glue/STS-B/dev.tsv", 1500),
        ("glue/RTE/train.tsv", 2490),
        ("glue/SST-2/train.tsv", 67349),
        ("banking77/train.csv", 10003),
        ("banking77/test.csv", 3080),
        ("cad_imdb/orig/train.tsv", 1707),
        ("comve_mc/train_B.csv", 10000),
        ("imdb_subset/train.jsonl", 3500),
    ],
)
def test_no_row_of_a_real_file_is_lost(shared_data: Path, name: str, rows: int) -> None:
    assert len(read_file(str(shared_data / name))[0]) == rows


@pytest.mark.parametrize(
    ("name", "names", "rows"),
    [
        ("sst2_sentences/train.tsv", ["text", "label"], 6920),
        ("sms_spam/sms.tsv", ["label", "text"], 5574),
        ("ag_news_10k/train.csv", ["text", "label"], 5000),
        ("go_emotions/train.tsv", ["text", "labels", "id"], 43410),
        ("glue/CoLA/train.tsv", ["source", "label", "star", "text"], 8551),
    ],
)
def test_real_files_without_a_header_ask_for_one_and_are_read_with_it(
    shared_data: Path, name: str, names: list[str], rows: int
) -> None:
    path = str(shared_data / name)
    assert "data.columns=[" in refusal(path)
    assert len(read_file(path, columns=names)[0]) == rows


def test_properly_quoted_reviews_lose_their_quotes_and_nothing_else(shared_data: Path) -> None:
    path = shared_data / "cad_imdb/orig/dev.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        expected = [cells[1] for cells in csv.reader(file, delimiter="\t")][1:]
    data, said = read_file(str(path))
    assert data["Text"][:] == expected
    assert said == []


BOOK = "\n\nOnce upon a time\nthere was a fox.\n \nIt could not sleep.\n\n\nIt rose.\n"


@pytest.mark.parametrize("rows", ["paragraph", "auto"])
def test_paragraphs_are_divided_by_blank_lines_and_keep_their_lines(write: Write, rows: str) -> None:
    write("a.txt", BOOK)
    found = ["Once upon a time\nthere was a fox.", "It could not sleep.", "It rose."]
    assert columns("a.txt", text_rows=rows)["text"] == found
    assert read_file("a.txt", text_rows=rows)[1] == ["a.txt: 3 paragraphs, divided by blank lines, a row each"]


def test_lines_are_rows_where_no_blank_line_divides_them(write: Write) -> None:
    assert columns(write("a.txt", "one\ntwo\n\n"), text_rows="auto")["text"] == ["one", "two"]


def test_a_file_can_be_one_row(write: Write) -> None:
    assert columns(write("a.txt", BOOK), text_rows="file")["text"] == [BOOK.strip("\n")]
