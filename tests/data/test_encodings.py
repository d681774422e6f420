"""Encodings: certain, detected and said, or refused with the line."""

import codecs
from pathlib import Path

import pytest

from nlp_finetune.data.encodings import decode
from nlp_finetune.errors import InputError

TEXTS = {
    "chinese": "text,label\n很好看,正面\n太差了,负面\n",
    "traditional": "text,label\n這家餐廳的東西很好吃,1\n服務太差了不會再來,0\n",
    "japanese": "text,label\nとても良い映画でした。また見たいです,1\n退屈で長すぎる,0\n",
    "korean": "text,label\n정말 좋은 영화였어요 다시 보고 싶다,1\n지루하고 너무 길다,0\n",
    "russian": "text,label\nОчень хороший фильм, смотрел с удовольствием,1\nПлохо, скучно и долго,0\n",  # noqa: RUF001
    "polish": "text,label\nBardzo dobry film, gorąco polecam każdemu,1\nZły i nudny, szkoda pieniędzy,0\n",
    "french": "text,label\nLe café était très bon,1\nLa soupe était froide et sans goût,0\n",
    "hungarian": "text,label\nNagyon jó film, őszintén ajánlom mindenkinek,1\nUnalmas és túl hosszú,0\n",
    "typographic": "text,label\nIt\u2019s fine,1\nNot so good,0\n",
    "hebrew": "text,label\nסרט מצוין נהניתי מאוד,1\nמשעמם וארוך,0\n" * 20,  # noqa: RUF001
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_is_read_without_a_note_and_its_mark_is_no_part_of_the_text(encoding: str) -> None:
    raw = TEXTS["chinese"].encode(encoding)
    assert decode(raw, path="a.csv") == (TEXTS["chinese"], [])


@pytest.mark.parametrize(
    ("mark", "encoding", "name"),
    [
        (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
        (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    ],
)
def test_utf16_and_utf32_are_known_by_their_mark(mark: bytes, encoding: str, name: str) -> None:
    raw = mark + TEXTS["chinese"].encode(encoding)
    assert decode(raw, path="a.csv") == (TEXTS["chinese"], [f"a.csv: {name} detected"])


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [
        ("chinese", "gbk", "gb18030"),
        ("chinese", "gb18030", "gb18030"),
        ("traditional", "big5", "big5"),
        ("japanese", "shift_jis", "cp932"),
        ("japanese", "euc_jp", "euc_jp"),
        ("korean", "euc_kr", "cp949"),
        ("russian", "cp1251", "cp1251"),
        ("russian", "koi8_r", "koi8_r"),
        ("polish", "cp1250", "cp1250"),
        ("french", "latin-1", "cp1252"),
        ("hungarian", "cp1250", "cp1250"),
        ("typographic", "cp1252", "cp1252"),
    ],
)
def test_other_encodings_are_detected_in_a_few_lines_and_said(text: str, encoding: str, said: str) -> None:
    raw = TEXTS[text].encode(encoding)
    assert decode(raw, path="a.csv") == (TEXTS[text], [f"a.csv: not UTF-8, read as {said}"])


def test_an_encoding_that_cannot_be_told_is_refused_with_the_line() -> None:
    with pytest.raises(InputError, match=r"a.csv, line 2: byte 0xf1 is not UTF-8.*data.encoding="):
        decode(TEXTS["hebrew"].encode("cp1255"), path="a.csv")


def test_a_few_characters_are_too_little_to_tell_an_encoding_by() -> None:
    with pytest.raises(InputError, match="could not be told"):
        decode("text\n麻婆豆腐鱼香肉丝宫保鸡丁辣子\n".encode("gbk"), path="a.csv")


def test_an_encoding_that_is_given_is_used_without_a_note() -> None:
    assert decode(TEXTS["hebrew"].encode("cp1255"), path="a", encoding="cp1255") == (TEXTS["hebrew"], [])


def test_broken_utf8_is_not_taken_for_another_encoding() -> None:
    raw = TEXTS["chinese"].encode().replace("差".encode(), "差".encode()[:2])
    with pytest.raises(InputError, match=r"a.csv, line 3: byte 0xe5 is not valid UTF-8"):
        decode(raw, path="a.csv")


def test_bytes_that_are_no_text_in_any_encoding_are_refused_with_the_line() -> None:
    with pytest.raises(InputError, match=r"line 3: byte 0xff is not UTF-8"):
        decode(b"text,label\nok,1\n\xff\xfe\xfa broken,0\n", path="a.csv")


def test_a_given_encoding_that_does_not_fit_is_refused_with_the_line() -> None:
    with pytest.raises(InputError, match="line 2: byte 0xe5 is not valid ASCII"):
        decode(TEXTS["chinese"].encode(), path="a.csv", encoding="ascii")


def test_an_unknown_encoding_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"data\.encoding=utf-9"):
        decode(b"text", path="a.csv", encoding="utf-9")


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"PK\x03\x04\x14\x00", "Excel"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x1f\x8b\x08\x00", "add .gz"),
        (b"PAR1\x15\x04", "parquet"),
        (b"text\x00label", "NUL bytes"),
    ],
)
def test_binary_content_is_not_a_text_file(raw: bytes, what: str) -> None:
    with pytest.raises(InputError, match=f"a.csv is not a text file: .*{what}"):
        decode(raw, path="a.csv")


def test_real_chinese_reviews_are_detected_in_their_old_encoding(shared_data: Path) -> None:
    text = (shared_data / "chnsenticorp" / "dev.tsv").read_text(encoding="utf-8")
    raw = text.encode("gb18030")
    assert decode(raw, path="dev.tsv") == (text, ["dev.tsv: not UTF-8, read as gb18030"])
