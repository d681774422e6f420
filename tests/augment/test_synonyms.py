"""Tables of synonyms, and what is said about files that are none."""

from pathlib import Path

import pytest

from nlp_finetune.augment import synonyms
from nlp_finetune.errors import InputError


def test_a_table_is_read_with_tabs_and_commas_and_remarks(tmp_path: Path) -> None:
    file = tmp_path / "table.tsv"
    file.write_text("# remark\ngood\tfine, nice\tgreat\n\nGood\tdecent\n高兴\t开心，快乐\n", encoding="utf-8")  # noqa: RUF001
    table = synonyms.read(str(file), lambda _: None)
    assert table.of("GOOD") == ("fine", "nice", "great", "decent")
    assert table.of("高兴") == ("开心", "快乐")
    assert table.of("bad") == ()
    assert table.longest == 2


def test_words_of_several_parts_are_left_out_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "table.tsv"
    file.write_text("good\tfine, very good\nso so\tmediocre\n")
    said: list[str] = []
    assert synonyms.read(str(file), said.append).table == {"good": ("fine",)}
    assert said == [f"synonyms: 1 words of {file}; 2 of several words are left out, since one stands for one"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("good\tfine\ngood, fine\n", "line 2: expected a word, a tab and its synonyms (good<TAB>fine, nice)"),
        ("\n# nothing\n", "holds no word with a synonym of one word"),
        ("good\tgood\n", "holds no word with a synonym of one word"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_its_line(content: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "table.tsv"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        synonyms.read(str(file), lambda _: None)
    assert says in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"augment\.synonym_table .*nowhere\.tsv: can't be read"):
        synonyms.read(str(tmp_path / "nowhere.tsv"), lambda _: None)


def test_another_content_is_another_table(tmp_path: Path) -> None:
    file = tmp_path / "table.tsv"
    file.write_text("good\tfine\n")
    one = synonyms.read(str(file), lambda _: None).digest
    file.write_text("good\tnice\n")
    assert synonyms.read(str(file), lambda _: None).digest != one
