"""Column files: one word a line, blank lines between sentences."""

from collections.abc import Callable

import pytest

from nlp_finetune.data import conll
from tests.data.reading import columns, notes, refusal

Write = Callable[[str, str | bytes], str]

FOUR = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\nPeter NNP I-NP I-PER\n. . O O\n"
TWO = "王 B-NAME\n明 E-NAME\n; O\n\n北 B-LOC\n京 E-LOC\n"


def test_sentences_are_rows_and_columns_are_lists(write: Write) -> None:
    read = columns(write("d.conll", FOUR))
    assert read["tokens"] == [["EU", "rejects"], ["Peter", "."]]
    assert read["tags"] == [["I-ORG", "O"], ["I-PER", "O"]]
    assert read["column2"] == [["NNP", "VBZ"], ["NNP", "."]]
    assert read["row"] == [1, 2]


@pytest.mark.parametrize("name", ["d.bio", "d.iob", "d.iob2", "d.bioes", "d.char.bmes", "d.txt", "d.tsv", "eng.testa"])
def test_column_files_are_known_by_suffix_or_content(write: Write, name: str) -> None:
    assert columns(write(name, TWO))["tokens"] == [["王", "明", ";"], ["北", "京"]]


def test_what_was_read_is_said(write: Write) -> None:
    assert notes(write("d.conll", FOUR)) == [
        "d.conll: a column file with tokens, column2, column3, tags; 2 sentences, 4 words"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a film O\nis long\n",
        "good film\tpos\nbad film\tneg\n",
        "it was O\nnobody came O\n",
        "The plot holds together. O\nIt ends B-LOC\n",
        "one line B-PER of five words\n",
    ],
)
def test_texts_and_tables_are_no_column_files(text: str) -> None:
    assert not conll.looks_like(text)


def test_tabs_keep_words_with_spaces_whole(write: Write) -> None:
    assert columns(write("d.conll", "New York\tB-LOC\n10 000\tO\n"))["tokens"] == [["New York", "10 000"]]


def test_an_ideographic_space_is_a_word(write: Write) -> None:
    assert columns(write("d.conll", "王 B-PER\n\u3000 O\n"))["tokens"] == [["王", "\u3000"]]


def test_windows_line_ends_and_padded_blank_lines_part_sentences(write: Write) -> None:
    assert columns(write("d.conll", "a B-X\r\n \r\n\r\nb O\r\n"))["tokens"] == [["a"], ["b"]]


def test_comments_of_another_width_are_left_out_and_a_hash_is_a_word(write: Write) -> None:
    assert columns(write("d.conll", "# id 7 domain=en\n# O\nParis B-LOC\n"))["tokens"] == [["#", "Paris"]]


def test_a_file_of_words_alone_has_no_tags(write: Write) -> None:
    assert set(columns(write("d.conll", "Paris\nis\n\nold\n"))) == {"tokens", "row"}


def test_columns_can_be_named(write: Write) -> None:
    assert set(columns(write("d.conll", "a x B-P\nb y O\n"), columns=["word", "pos", "ner"])) == {
        "word",
        "pos",
        "ner",
        "row",
    }


def test_a_line_with_another_number_of_columns_is_named(write: Write) -> None:
    assert "d.conll, line 2: expected 2 columns" in refusal(write("d.conll", "a O\nb\nc O\n"))


def test_a_line_without_a_word_is_named(write: Write) -> None:
    assert "line 2" in refusal(write("d.conll", "a\tO\n\tO\nc\tO\n"))


def test_quoting_is_no_matter_of_column_files(write: Write) -> None:
    assert "data.quoting" in refusal(write("d.conll", TWO), quoting="none")


def test_a_file_of_another_kind_is_still_refused_by_its_name(write: Write) -> None:
    assert "cannot be told from its name" in refusal(write("d.train", "text,label\na,b\n"))
