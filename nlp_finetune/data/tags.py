"""Tags of words: the scheme they are written in, whether they keep to it, and the same tags in IOB2.

    IO            I-PER for every word of an entity; neighbours of one type melt together
    IOB1          the same, and B- only where an entity follows another of its type
    IOB2 (BIO)    B- for the first word of every entity, I- for the rest
    BIOES, BMES   last words (E-) and single ones (S-) marked too; BILOU and BMEW are the same in other letters

IOB2 tags are also numbers here: 0 is `O`, `2 i + 1` is `B-` and `2 i + 2` is `I-` of type i.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from nlp_finetune.errors import InputError

OUTSIDE = "O"
_TAG = re.compile(r"([BIESMLUW])[-_](.+)")
_LOWER_CASE = re.compile("[bieslmuwo][-_].+|o")
_WITH_ENDS = {"BIOES": "BIES", "BMES": "BMES", "BILOU": "BILU", "BMEW": "BMEW", "BIEW": "BIEW"}
_INSIDE, _LAST, _SINGLE = {"I", "M"}, {"E", "L"}, {"S", "U", "W"}
_NEEDLESS_SHARE = 0.01

Entity = tuple[int, int, int]
"""First word, word after the last, number of the type."""


@dataclass(frozen=True)
class TaggedRows:
    """Words and tags of a split, `[rows][words]`, and the number of each row for messages."""

    split: str
    rows: Sequence[int]
    words: Sequence[Sequence[str]]
    tags: Sequence[Sequence[str]]


@dataclass(frozen=True)
class _Misfit:
    """A tag that a scheme does not allow where it stands."""

    index: int
    position: int
    problem: str


@lru_cache(maxsize=10_000)
def parts(tag: str) -> tuple[str, str]:
    """Letter and type of a tag: `("B", "PER")`; `("O", "")` outside; `("", "PER")` for a type alone."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    found = _TAG.fullmatch(tag)
    return (found[1], found[2]) if found else ("", tag)


def to_iob2(splits: Sequence[TaggedRows], *, repair: bool = False) -> tuple[str, list[list[list[str]]]]:
    """Name of the scheme that all splits are written in, and the tags of each in IOB2.

    Tags that the scheme does not allow where they stand are read as conlleval does, an entity begins where
    none goes on, with `repair`, and where they are one in a hundred needless B- of IOB1 (CoNLL-2003 has
    two); the name says so. Else they raise `InputError` naming split, row and word, as do several schemes.
    """
    scheme = _detect(splits)
    misfits = [(split, misfit) for split in splits for misfit in _misfits(split.tags, scheme)]
    if misfits and not repair and not (scheme == "IOB1" and len(misfits) <= _NEEDLESS_SHARE * _beginnings(splits)):
        raise _refusal(misfits, scheme)
    name = f"{scheme} ({len(misfits)} tags that break it begin an entity or end one)" if misfits else scheme
    return name, [[_converted(tags) for tags in split.tags] for split in splits]


def _beginnings(splits: Sequence[TaggedRows]) -> int:
    return sum(1 for split in splits for _ in _misfits(split.tags, "IOB2"))


def _detect(splits: Sequence[TaggedRows]) -> str:
    letters = {parts(tag)[0] for split in splits for tags in split.tags for tag in set(tags)}
    if "" in letters:
        kinds = {parts(tag)[1] for split in splits for tags in split.tags for tag in set(tags)} - {""}
        if all(map(_LOWER_CASE.fullmatch, kinds)):
            raise InputError(
                f"The tags are written in lower case ({_firsts(splits, {''})}). Write O, B-TYPE and I-TYPE, "
                "with capital letters before the hyphen."
            )
        if letters <= {"", OUTSIDE} and OUTSIDE in letters:
            return "IO"
        problem = "Tags with and without a prefix are mixed" if letters - {"", OUTSIDE} else "No word has the tag O"
        raise InputError(
            f"{problem} ({_firsts(splits, letters)}). Entity tags are O, B-TYPE and I-TYPE (or IOB1, BIOES, BMES)."
        )
    used = letters - {OUTSIDE}
    if used <= {"I"}:
        return "IO" if used else "IOB2"
    if used <= {"B", "I"}:
        needless = sum(1 for split in splits for _ in _misfits(split.tags, "IOB1"))
        return "IOB2" if _beginnings(splits) <= needless else "IOB1"
    for scheme, known in _WITH_ENDS.items():
        if used <= set(known):
            return scheme
    raise InputError(
        f"The tags mix several schemes ({_firsts(splits, letters)}): the letters {', '.join(sorted(used))} fit none of "
        f"IOB1, IOB2, {', '.join(_WITH_ENDS)}. Write all rows in one scheme."
    )


def _firsts(splits: Sequence[TaggedRows], letters: Iterable[str]) -> str:
    """Where each letter occurs first, for a message."""
    first: dict[str, str] = {}
    for split in splits:
        for row, tags in zip(split.rows, split.tags, strict=True):
            for position, tag in enumerate(tags, start=1):
                first.setdefault(parts(tag)[0], f"{tag} at {split.split} row {row}, word {position}")
    return "; ".join(first[letter] for letter in sorted(letters))


def _misfits(sequences: Sequence[Sequence[str]], scheme: str) -> Iterator[_Misfit]:
    check = {"IO": _nothing, "IOB1": _iob1_problem, "IOB2": _iob2_problem}.get(scheme, _ends_problem)
    for index, tags in enumerate(sequences):
        before = (OUTSIDE, "")
        for position, tag in enumerate(tags):
            here = parts(tag)
            problem = check(before, here)
            if problem:
                yield _Misfit(index, position, problem)
            before = here
        if check is _ends_problem and tags and (problem := check(before, (OUTSIDE, ""))):
            yield _Misfit(index, len(tags) - 1, "is not ended")


def _nothing(_before: tuple[str, str], _here: tuple[str, str]) -> str | None:
    return None


def _iob2_problem(before: tuple[str, str], here: tuple[str, str]) -> str | None:
    if here[0] != "I" or (before[1] == here[1] and before[0] != OUTSIDE):
        return None
    return f"continues no {here[1]} entity: it stands after {_shown(before)}, and an entity begins with B-"


def _iob1_problem(before: tuple[str, str], here: tuple[str, str]) -> str | None:
    if here[0] != "B" or (before[1] == here[1] and before[0] != OUTSIDE):
        return None
    return f"follows no {here[1]} entity: it stands after {_shown(before)}, and B- only parts two of a type"


def _ends_problem(before: tuple[str, str], here: tuple[str, str]) -> str | None:
    is_open = before[0] == "B" or before[0] in _INSIDE
    goes_on = here[0] in _INSIDE or here[0] in _LAST
    if is_open and not (goes_on and here[1] == before[1]):
        return f"stands after {_shown(before)}, whose entity is not ended yet"
    if goes_on and not is_open:
        return f"continues no entity: it stands after {_shown(before)}, and an entity begins with B-"
    return None


def _shown(part: tuple[str, str]) -> str:
    return "-".join(part) if part[1] else OUTSIDE


def _refusal(misfits: Sequence[tuple[TaggedRows, _Misfit]], scheme: str) -> InputError:
    split, first = misfits[0]
    word, tag = split.words[first.index][first.position], split.tags[first.index][first.position]
    more = f" There are {len(misfits):,} such tags." if len(misfits) > 1 else ""
    return InputError(
        f"{split.split}: row {split.rows[first.index]}, word {first.position + 1} ({word!r}): the tag {tag} "
        f"{first.problem} (the tags look like {scheme}).{more} Correct them, or set task.bad_tags=repair: "
        "then an entity begins where none goes on."
    )


def _converted(tags: Sequence[str]) -> list[str]:
    """IOB2 tags of a sequence, whichever its scheme: an entity begins where none goes on."""
    converted = []
    before = (OUTSIDE, "")
    for tag in tags:
        letter, kind = here = parts(tag)
        starts_anew = letter == "B" or letter in _SINGLE or before[0] in _LAST | _SINGLE
        goes_on = before[1] == kind and not starts_anew
        converted.append(OUTSIDE if letter == OUTSIDE else f"{'I' if goes_on else 'B'}-{kind}")
        before = here
    return converted


# -- IOB2 tags as numbers -----------------------------------------------------------------------


def types(tags: Iterable[Sequence[str]]) -> list[str]:
    """Entity types of IOB2 tags, sorted."""
    return sorted({parts(tag)[1] for sequence in tags for tag in set(sequence)} - {""})


def names(entity_types: Sequence[str]) -> list[str]:
    """Tags in the order of their numbers."""
    return [OUTSIDE, *(f"{letter}-{kind}" for kind in entity_types for letter in "BI")]


def repaired(tags: Sequence[int]) -> list[int]:
    """The same tags in valid IOB2: an `I-` that continues nothing begins an entity."""
    fixed: list[int] = []
    before = 0
    for tag in tags:
        is_inside = tag > 0 and tag % 2 == 0
        before = tag - 1 if is_inside and before not in (tag, tag - 1) else tag
        fixed.append(before)
    return fixed


def entities(tags: Sequence[int]) -> list[Entity]:
    """Entities of valid IOB2 tags, in order."""
    found: list[Entity] = []
    for position, tag in enumerate(tags):
        if tag % 2:
            found.append((position, position + 1, tag // 2))
        elif tag:
            first, _, kind = found[-1]
            found[-1] = (first, position + 1, kind)
    return found
