"""From the bytes of a text file to its text, whatever the encoding.

UTF-8, with or without a byte order mark, and UTF-16/32 by their mark are certain. Anything else is a
guess: it is made only where the evidence is good, and said; otherwise the user is asked.
"""

from __future__ import annotations

import codecs
import re

from nlp_finetune.errors import InputError

_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; save the sheet as CSV",
    b"\x1f\x8b": "gzip-compressed; add .gz to its name",
    b"\xd0\xcf\x11\xe0": "an old Office document; save the sheet as CSV",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"PAR1": "a Parquet file; name it .parquet",
    b"ARROW1": "an Arrow file; name it .arrow",
    b"BZh": "bzip2-compressed; unpack it first",
    b"\xfd7zXZ": "xz-compressed; unpack it first",
}
_FREQUENT = {
    # The commonest characters of each language make up a quarter or more of real text and about a
    # hundredth of text that was decoded with the wrong one of these encodings.
    "gb18030": "的一是不了在有我他这个们中来上大为和地到以说时要就出会可也你对生能而子那得于着下自之年过"
    "后作里用好很没都还看服房店买",
    "big5": "的一是不了在有我他這個們中來上大為和地到以說時要就出會可也你對生能而子那得於著下自之年過"
    "後作裡用好很沒都還看",
    "cp932": "のにはをたがでてとしれさるいもなかっらこうすりんだそまどせきよくつえみおあけめやわち、。",
    "euc_jp": "のにはをたがでてとしれさるいもなかっらこうすりんだそまどせきよくつえみおあけめやわち、。",
    "cp949": "이다는을의에가고하지로한은어기나도리서를사인아만그자해라있요게시대들일수정부제면보무음",
}
_LATIN = ("cp1252", "cp1250", "cp1254", "cp1257", "cp1258", "iso8859_2")
_OTHER_ALPHABETS = ("cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "tis_620")
# Not here: the o with tilde, which is the Hungarian double acute in cp1250.
_WESTERN = frozenset(
    "àáâãäåæçèéêëìíîïñòóôöøùúûüßœÀÁÂÄÅÆÇÈÉÊËÍÎÑÓÔÖØÚÛÜŒ\u2018\u2019\u201a\u201c\u201d\u201e\u2013\u2014\u2026€£¢°«»¡¿•©®™\xb4·§½¼\xa0"
)
_SAMPLE_BYTES = 100_000


def decode(raw: bytes, *, path: str, encoding: str | None = None) -> tuple[str, list[str]]:
    """Text of a file, without byte order mark, and a note where the encoding is not plain UTF-8.

    `encoding` overrules detection. Raises `InputError` for binary content, for bytes that do not fit
    the encoding (with the line of the first), and where no guess is good enough.
    """
    if encoding is not None:
        return _decode_as(raw, encoding, path=path), []
    for mark, name in _MARKS:
        if raw.startswith(mark):
            text = _decode_as(raw, name, path=path)
            return text, [] if name == "utf-8-sig" else [f"{path}: {name.upper()} detected"]
    _refuse_binary(raw, path)
    try:
        return raw.decode("utf-8"), []
    except UnicodeDecodeError as error:
        if _mostly_utf8(raw):
            raise _undecodable(path, "utf-8", error) from None
        detected = _detect(raw)
        if detected is None:
            raise InputError(
                f"{path}, line {_line(raw, error.start)}: byte 0x{raw[error.start]:02x} is not UTF-8, and "
                "the file's encoding could not be told. Say it with data.encoding=... (cp1252, gb18030, "
                "shift_jis, ...), or save the file as UTF-8."
            ) from None
        return _decode_as(raw, detected, path=path), [f"{path}: not UTF-8, read as {detected}"]


def _decode_as(raw: bytes, encoding: str, *, path: str) -> str:
    try:
        # A byte order mark must not become part of the first column's name.
        return raw.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise InputError(
            f"data.encoding={encoding} is no encoding that Python knows; "
            "try utf-8, utf-16, cp1252, gb18030, big5, shift_jis, euc_kr or koi8_r."
        ) from None
    except UnicodeDecodeError as error:
        raise _undecodable(path, encoding, error) from None


def _undecodable(path: str, encoding: str, error: UnicodeDecodeError) -> InputError:
    return InputError(
        f"{path}, line {_line(error.object, error.start)}: byte 0x{error.object[error.start]:02x} is not "
        f"valid {encoding.upper().removesuffix('-SIG')} ({error.reason}). "
        "Repair that line, or say the file's encoding with data.encoding=..."
    )


def _line(raw: bytes, position: int) -> int:
    return raw.count(b"\n", 0, position) + 1


def _refuse_binary(raw: bytes, path: str) -> None:
    for magic, what in _BINARY.items():
        if raw.startswith(magic):
            raise InputError(f"{path} is not a text file: it is {what}.")
    if b"\0" in raw:
        raise InputError(
            f"{path} is not a text file: it has NUL bytes (first in line {_line(raw, raw.index(0))}). "
            "If it is UTF-16 without a byte order mark, say data.encoding=utf-16-le."
        )


def _mostly_utf8(raw: bytes) -> bool:
    """Whether this is UTF-8 with some broken places, rather than another encoding."""
    text = raw.decode("utf-8", errors="replace")
    broken = text.count("\ufffd")
    whole = sum(map(len, re.findall(r"[^\x00-\x7f\ufffd]+", text)))
    return whole >= broken


def _detect(raw: bytes) -> str | None:
    sample = _sample(raw)
    return _detect_east_asian(sample) or _detect_western(sample) or _detect_alphabetic(sample)


def _sample(raw: bytes) -> bytes:
    """Whole lines that hold bytes outside ASCII, enough of them to judge by."""
    lines, size = [], 0
    for match in re.finditer(rb"[^\n]*[\x80-\xff][^\n]*\n?", raw):
        lines.append(match.group())
        size += len(match.group())
        if size > _SAMPLE_BYTES:
            break
    return b"".join(lines)


def _detect_east_asian(sample: bytes) -> str | None:
    """The one encoding under which the commonest characters of its language are common."""
    shares = {}
    for name, frequent in _FREQUENT.items():
        try:
            letters = [c for c in sample.decode(name) if c > "\x7f"]
        except UnicodeDecodeError:
            continue
        shares[name] = sum(c in frequent for c in letters) / len(letters)
    if not shares:
        return None
    best, *others = sorted(shares, key=lambda name: -shares[name])
    clear = shares[best] >= 0.12 and all(shares[best] > 2 * shares[other] for other in others)
    return best if clear else None


def _detect_western(sample: bytes) -> str | None:
    """cp1252 where all that is outside ASCII are accents inside words and typographic signs.

    Statistics need more accents than a mostly English file has; its few are unmistakable.
    """
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return None
    foreign = re.findall(r"[^\x00-\x7f]+", text)
    plain = all(len(run) <= 2 and _WESTERN.issuperset(run) for run in foreign)
    # Cyrillic, Greek or Thai in this reading are nothing but such letters.
    return "cp1252" if plain and sum(map(len, foreign)) < 0.25 * len(text) else None


def _detect_alphabetic(sample: bytes) -> str | None:
    """charset-normalizer's guess among the common one-byte encodings, if it stands out."""
    from charset_normalizer import from_bytes

    matches = list(from_bytes(sample, cp_isolation=[*_LATIN, *_OTHER_ALPHABETS]))
    best = max(matches, key=lambda match: match.coherence, default=None)
    if best is None or best.chaos > 0.15 or best.coherence < 0.25:
        return None
    for rival in matches:
        akin = rival is best or (rival.encoding in _LATIN and best.encoding in _LATIN)
        as_clean = rival.chaos <= best.chaos + 0.05
        if not akin and as_clean and rival.coherence > best.coherence / 2:
            return None
    name: str = best.encoding
    return name
