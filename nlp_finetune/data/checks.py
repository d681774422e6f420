"""What is wrong with the data, found before any training: each finding is one line that says what to do.

error      training makes no sense on these data
warning    scores or the model will suffer
note       worth knowing
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nlp_finetune.data.duplicates import (
    Duplicates,
    Leakage,
    Match,
    SplitTexts,
    duplicates,
    leakage,
    normalise,
)
from nlp_finetune.data.lengths import LengthReport, length_report, percent

__all__ = [
    "Balance",
    "Duplicates",
    "Finding",
    "Leakage",
    "LengthReport",
    "SplitTexts",
    "balance",
    "duplicates",
    "examine",
    "leakage",
    "length_report",
    "normalise",
]

Level = Literal["error", "warning", "note"]
Unit = Literal["text", "image"]
_ALIKE: dict[Unit, str] = {"text": "word for word", "image": "byte for byte"}

_EXAMPLES = 3
_NAMES_SHOWN = 5
_IMBALANCE = 10
"""The largest class has so many times the rows of the smallest: accuracy begins to mislead."""
_HARMFUL_LOSS = 0.01
"""Share of tokens cut from which on a warning is due."""


@dataclass(frozen=True)
class Finding:
    """One line about the data. `code` names its kind and is stable; `message` is for people."""

    level: Level
    code: str
    message: str


@dataclass(frozen=True)
class Balance:
    """Rows of each class, the most frequent class first, and the number of rows that have a label.

    A row may count in several classes, so that shares may add up to more than 1.
    """

    counts: dict[str, int]
    rows: int

    @property
    def rarest(self) -> str:
        """Name of the class with the fewest rows."""
        return min(self.counts, key=self.counts.__getitem__)

    @property
    def single_row(self) -> list[str]:
        """Names of the classes that have one row only."""
        return [name for name, count in self.counts.items() if count == 1]

    def share(self, name: str) -> float:
        """Share of the labelled rows that have the class, 0 to 1."""
        return self.counts[name] / self.rows


def balance(labels: Iterable[str | None], *, separator: str | None = None) -> Balance:
    """Count the rows of each class; `separator` divides the classes of a multi-label row."""
    labelled = [label for label in labels if label is not None]
    if separator is None:
        counts = Counter(labelled)
    else:
        counts = Counter(name for label in labelled for name in label.split(separator) if name)
    return Balance(dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))), len(labelled))


def examine(
    splits: Mapping[str, SplitTexts],
    *,
    lengths: Mapping[str, LengthReport] | None = None,
    length_keys: Sequence[str] = ("task.max_length", "task.on_long"),
    separator: str | None = None,
    unit: Unit = "text",
) -> list[Finding]:
    """Check all splits, alone and against each other: findings in order, errors first.

    `splits` holds `train` and any of `validation` and `test`; `lengths` what `length_report` measured;
    `length_keys` are the recipe's keys for the longest input and, if there is one, for what becomes of longer
    rows; `separator` divides the classes in the label of a multi-label row; `unit` says what a row is, for
    messages: the texts of images are hashes of their files.
    """
    findings: list[Finding] = []
    for name, split in splits.items():
        findings += _blank_rows(name, split) + _repetitions(name, split, unit)
    names = list(splits)
    pairs = [(first, second) for i, first in enumerate(names) for second in names[i + 1 :]]
    for first, second in pairs:
        findings += _leaks(first, second, leakage(splits[first], splits[second]), unit)
    findings += _classes({name: balance(split.labels, separator=separator) for name, split in splits.items()})
    for name, report in (lengths or {}).items():
        findings.append(_length(name, report, *length_keys))
    order: list[Level] = ["error", "warning", "note"]
    return sorted(findings, key=lambda finding: order.index(finding.level))


def _blank_rows(name: str, split: SplitTexts) -> list[Finding]:
    blank, rows = split.blank, len(split.rows)
    if not blank:
        return []
    if len(blank) == rows:
        return [Finding("error", "no_text", f"{name}: no row has any text; is this the text column?")]
    numbers = _rows([split.rows[i] for i in blank])
    message = f"{name}: {_of(len(blank), rows)} without text ({numbers}); remove them or fill them in"
    return [Finding("warning", "empty_text", message)]


def _repetitions(name: str, split: SplitTexts, unit: Unit) -> list[Finding]:
    rows = len(split.rows)
    if name == "train" and rows > 1 and len(split.groups) == 1 and not split.blank:
        message = f"{name}: all {rows:,} rows hold the same {unit}; is this the {unit} column?"
        return [Finding("error", "constant_text", message)]
    found = duplicates(split)
    findings = []
    if found.exact or found.normalised:
        message = (
            f"{name}: {_occurrences(found, rows, 'repeat an earlier row', unit)}; "
            "remove them unless they are meant to weigh more"
        )
        findings.append(Finding("note" if name == "train" else "warning", "duplicates", message))
    if found.conflicts:
        message = (
            f"{name}: {_of(len(found.conflicts), rows)} share their {unit} with a row of another label "
            f"({_rows(found.conflicts)}); decide on one label or remove them"
        )
        findings.append(Finding("warning", "conflicting_labels", message))
    return findings


def _leaks(first: str, second: str, found: Leakage, unit: Unit) -> list[Finding]:
    findings = []
    if found.exact or found.normalised:
        message = (
            f"{second}: {_occurrences(found, found.rows, f'are also in {first}', unit, f'{first} ')}; "
            f"scores on them are not those of new data: remove them from {first}"
        )
        findings.append(Finding("warning", "leakage", message))
    if found.conflicts:
        message = (
            f"{second}: {_of(len(found.conflicts), found.rows)} are in {first} only with another label "
            f"({_matches(found.conflicts, f'{first} ')}); one of the two labels is wrong"
        )
        findings.append(Finding("warning", "leakage_conflicts", message))
    return findings


def _classes(balances: Mapping[str, Balance]) -> list[Finding]:
    findings = [
        Finding("note", "class_balance", f"{name}: {_distribution(found)}")
        for name, found in balances.items()
        if found.counts
    ]
    train = balances.get("train")
    if train is None or not train.counts:
        return findings
    if train.single_row:
        message = f"train: one row only of {_list(train.single_row)}; add rows, or merge or drop the class"
        findings.append(Finding("warning", "single_row_classes", message))
    largest = next(iter(train.counts))
    ratio = train.counts[largest] / train.counts[train.rarest]
    if ratio >= _IMBALANCE:
        message = (
            f"train: {largest} has {ratio:,.0f} times the rows of {train.rarest}; accuracy hides rare "
            "classes: choose the best checkpoint by a macro-averaged F1 (train.metric)"
        )
        findings.append(Finding("warning", "imbalance", message))
    for name in ("validation", "test"):
        if name in balances and balances[name].counts:
            findings += _coverage(name, set(train.counts), set(balances[name].counts))
    return findings


def _coverage(name: str, trained: set[str], found: set[str]) -> list[Finding]:
    findings = []
    if unseen := sorted(found - trained):
        message = f"{name}: {_list(unseen)} not in train: never learned; add training rows, or drop these rows"
        findings.append(Finding("warning", "unseen_classes", message))
    if name == "validation" and (missing := sorted(trained - found)):
        message = f"validation: no row of {_list(missing)}: never measured; add rows of each"
        findings.append(Finding("warning", "missing_classes", message))
    return findings


def _length(name: str, report: LengthReport, longest: str, on_long: str | None = None) -> Finding:
    message = (
        f"{name}: {report.line()} ({'/'.join(map(str, report.percentiles))} % of rows have at most "
        f"{'/'.join(map(str, report.percentiles.values()))} tokens, the longest {report.longest})"
    )
    if report.now.tokens < _HARMFUL_LOSS:
        return Finding("note", "lengths", message)
    remedies = []
    if report.larger:
        enough = next((cut for cut in report.larger if cut.tokens < _HARMFUL_LOSS), report.larger[-1])
        remedies.append(f"{longest}={enough.max_length} keeps more")
    if on_long is not None:
        remedies.append(f"see {on_long}")
    return Finding("warning", "truncation", "; ".join(filter(None, [message, ", or ".join(remedies)])))


def _distribution(found: Balance) -> str:
    shown = [
        f"{name}: {count:,} ({percent(count / found.rows)})"
        for name, count in list(found.counts.items())[:_NAMES_SHOWN]
    ]
    hidden = len(found.counts) - len(shown)
    if hidden:
        shown.append(
            f"{hidden} more, the rarest {found.rarest}: {found.counts[found.rarest]:,} "
            f"({percent(found.share(found.rarest))})"
        )
    kinds = "class" if len(found.counts) == 1 else "classes"
    return f"{len(found.counts)} {kinds} in {found.rows:,} rows: {', '.join(shown)}"


def _of(count: int, rows: int) -> str:
    return f"{count:,} of {rows:,} rows ({percent(count / rows)})"


def _occurrences(found: Duplicates | Leakage, rows: int, verb: str, unit: Unit, where: str = "") -> str:
    """How many rows recur word for word, how many more once normalised, and examples."""
    folded = "but for case, width, spacing or punctuation"
    if not found.exact:
        return f"{_of(len(found.normalised), rows)} {verb}, {folded} ({_matches(found.normalised, where)})"
    more = f"; {len(found.normalised):,} more {folded}" if found.normalised else ""
    return f"{_of(len(found.exact), rows)} {verb}, {_ALIKE[unit]}{more} ({_matches(found.exact, where)})"


def _matches(matches: Sequence[Match], where: str) -> str:
    shown = ", ".join(f"row {row} = {where}row {first}" for row, first in matches[:_EXAMPLES])
    return shown + _rest(matches)


def _rows(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:_EXAMPLES])
    return ("row " if len(numbers) == 1 else "rows ") + shown + _rest(numbers)


def _rest(items: Sequence[object]) -> str:
    return ", ..." if len(items) > _EXAMPLES else ""


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    hidden = len(names) - _NAMES_SHOWN
    return f"{shown} and {hidden} more" if hidden > 0 else shown
