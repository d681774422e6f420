"""What is wrong with the data is found before training, counted, and shown with rows."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nlp_finetune.data.checks import (
    Finding,
    SplitTexts,
    balance,
    duplicates,
    examine,
    leakage,
    length_report,
    normalise,
)


def split(*rows: tuple[str, str | None], first_row: int = 1) -> SplitTexts:
    return SplitTexts(
        texts=[text for text, _ in rows],
        labels=[label for _, label in rows],
        rows=list(range(first_row, first_row + len(rows))),
    )


def of_code(findings: Sequence[Finding], code: str) -> list[Finding]:
    return [finding for finding in findings if finding.code == code]


def one(findings: Sequence[Finding], code: str) -> Finding:
    (finding,) = of_code(findings, code)
    return finding


def read_tsv(path: Path, *, text: int, label: int, header: bool) -> SplitTexts:
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
    lines = lines[header:]
    return SplitTexts([x[text] for x in lines], [x[label] for x in lines], list(range(1, len(lines) + 1)))


GOOD = split(("fine soup", "yes"), ("cold soup", "no"), ("warm bread", "yes"), ("stale bread", "no"))


class TestNormalise:
    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ("Great  film!", "great film"),
            ("\uff57\uff49\uff44\uff45\uff0c\uff34\uff25\uff38\uff34", "wide text"),
            ("Straße", "STRASSE"),
            ("不错\uff0c很好。", "不错 很好!!"),
            ("电影 no.1 好看", "电影no 1好看"),
            ("so\u200bft", "soft"),
            ("a\u00a0b\r\nc", "a b c"),
        ],
    )
    def test_width_case_space_and_punctuation_do_not_matter(self, left: str, right: str) -> None:
        assert normalise(left) == normalise(right)

    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ("不错", "不好"),
            ("nice 😀", "nice 😡"),
            ("well known", "wellknown"),
            ("!!!", "..."),
            ("naïve", "naive"),
        ],
    )
    def test_words_symbols_and_bare_punctuation_do_matter(self, left: str, right: str) -> None:
        assert normalise(left) != normalise(right)


class TestLeakage:
    def test_rows_match_word_for_word_or_once_normalised_and_never_count_twice(self) -> None:
        other = split(("fine soup", "yes"), ("Fine soup!", "yes"), ("new text", "no"), first_row=10)
        found = leakage(GOOD, other)
        assert (found.exact, found.normalised, found.conflicts) == ([(10, 1)], [(11, 1)], [])

    def test_a_row_conflicts_only_where_train_never_has_its_label(self) -> None:
        train = split(("a b", "x"), ("a b", "y"), ("c d", "x"))
        other = split(("a b", "y"), ("c d", "y"), ("C d.", "y"), first_row=10)
        assert leakage(train, other).conflicts == [(11, 3), (12, 3)]

    def test_rows_without_labels_match_but_never_conflict(self) -> None:
        found = leakage(GOOD, split(("fine soup", None)))
        assert (len(found.exact), found.conflicts) == (1, [])
        assert leakage(split(("a", None)), split(("a", "x"))).conflicts == []

    def test_blank_rows_do_not_match_each_other(self) -> None:
        found = leakage(split(("", "x"), (" ", "x"), ("a", "x")), split(("", "y"), ("\t", "y")))
        assert (found.exact, found.normalised) == ([], [])

    def test_row_numbers_that_repeat_across_files_do_not_mix_rows_up(self) -> None:
        other = SplitTexts(["fine soup", "new text"], ["no", "yes"], [1, 1])
        assert leakage(GOOD, other).conflicts == [(1, 1)]


class TestDuplicates:
    def test_the_first_row_of_a_text_is_no_duplicate(self) -> None:
        found = duplicates(split(("a b", "x"), ("a b", "x"), ("A b", "x"), ("A b", "x"), ("c", "y")))
        assert (found.exact, found.normalised, found.conflicts) == ([(2, 1), (4, 3)], [(3, 1)], [])

    def test_all_rows_of_a_text_with_two_labels_conflict(self) -> None:
        assert duplicates(split(("a b", "x"), ("c", "x"), ("A b!", "y"))).conflicts == [1, 3]

    def test_row_numbers_that_repeat_across_files_are_still_duplicates(self) -> None:
        assert duplicates(SplitTexts(["a", "a"], ["x", "x"], [7, 7])).exact == [(7, 7)]


class TestExamine:
    def test_clean_data_give_notes_only(self) -> None:
        valid = split(("new dish", "yes"), ("old dish", "no"))
        assert {finding.level for finding in examine({"train": GOOD, "validation": valid})} == {"note"}

    def test_leaks_are_reported_between_all_pairs_of_splits(self) -> None:
        valid = split(("fine soup", "yes"), ("new dish", "no"))
        test = split(("new dish", "no"), ("Warm bread.", "no"))
        messages = [f.message for f in of_code(examine({"train": GOOD, "validation": valid, "test": test}), "leakage")]
        assert len(messages) == 3
        assert messages[0].startswith("validation: 1 of 2 rows (50 %) are also in train, word for word")
        assert messages[1].startswith("test: 1 of 2 rows (50 %) are also in train, but for case")
        assert "row 1 = validation row 2" in messages[2]

    def test_at_most_three_rows_are_named(self) -> None:
        rows = [("same text", "x")] * 9 + [("other", "y")]
        message = one(examine({"train": split(*rows)}), "duplicates").message
        assert message.startswith("train: 8 of 10 rows (80 %)")
        assert message.count(" = ") == 3

    def test_blank_rows_are_counted_with_their_numbers(self) -> None:
        data = split(("a", "x"), (" ", "x"), ("", "y"), ("b", "y"))
        finding = one(examine({"train": data}), "empty_text")
        assert finding.level == "warning"
        assert "2 of 4 rows (50 %) without text (rows 2, 3)" in finding.message

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (split(("", "x"), (" ", "y")), "no_text"),
            (split(("same", "x"), ("same", "y")), "constant_text"),
        ],
    )
    def test_a_text_column_that_says_nothing_is_an_error_and_comes_first(self, data: SplitTexts, code: str) -> None:
        first = examine({"train": data, "validation": GOOD})[0]
        assert (first.level, first.code) == ("error", code)

    def test_classes_that_cannot_be_learned_or_measured_are_named(self) -> None:
        valid = split(("u", "yes"), ("v", "maybe"))
        findings = examine({"train": GOOD, "validation": valid, "test": split(("w", "other"))})
        unseen = of_code(findings, "unseen_classes")
        assert [("maybe" in f.message, "other" in f.message) for f in unseen] == [
            (True, False),
            (False, True),
        ]
        assert "validation: no row of no:" in one(findings, "missing_classes").message

    def test_a_class_with_one_row_and_a_rare_class_are_warnings(self) -> None:
        rows = [(f"text {i}", "common") for i in range(30)] + [("odd", "rare")]
        findings = examine({"train": split(*rows)})
        assert "one row only of rare" in one(findings, "single_row_classes").message
        assert "common has 30 times the rows of rare" in one(findings, "imbalance").message

    def test_many_classes_are_summed_up_in_one_line(self) -> None:
        rows = [(f"text {i} {j}", f"c{j:02}") for j in range(40) for i in range(41 - j)]
        message = one(examine({"train": split(*rows)}), "class_balance").message
        assert message.startswith("train: 40 classes in 860 rows: c00: 41 (4.8 %)")
        assert "35 more, the rarest c39: 2" in message

    def test_numbers_as_targets_have_no_class_findings(self) -> None:
        data = split(("a", None), ("b", None))
        assert examine({"train": data, "validation": split(("c", None))}) == []

    def test_multi_label_rows_count_in_each_of_their_classes(self) -> None:
        train = split(("a", "joy + fear"), ("b", "joy"), ("c", "fear"), ("d", "fear"))
        valid = split(("e", "fear + joy"))
        findings = examine({"train": train, "validation": valid}, separator=" + ")
        assert of_code(findings, "unseen_classes") == []
        assert of_code(findings, "class_balance")[0].message == (
            "train: 2 classes in 4 rows: fear: 3 (75 %), joy: 2 (50 %)"
        )

    @pytest.mark.parametrize(("max_length", "level"), [(128, "warning"), (1000, "note")])
    def test_what_is_cut_is_always_said_and_a_warning_where_it_hurts(self, max_length: int, level: str) -> None:
        report = length_report(np.array([100] * 8 + [300] * 2), max_length, limit=1024)
        finding = examine({"train": GOOD}, lengths={"train": report})[0 if level == "warning" else -1]
        assert finding.level == level
        assert finding.message.startswith(f"train: {report.line()}")
        assert ("task.max_length=512 keeps more" in finding.message) is (level == "warning")

    def test_the_shortest_length_that_keeps_nearly_all_is_recommended(self) -> None:
        report = length_report(np.array([200] * 500 + [300]), 128, limit=1024)
        assert report.larger[0].tokens > 0
        assert "task.max_length=256 keeps" in examine({"train": GOOD}, lengths={"train": report})[0].message

    def test_every_message_is_one_line(self) -> None:
        train = split(("a\nb", "x"), ("a\nb", "y"), ("", "x"), ("c", "x"))
        for finding in examine({"train": train, "validation": split(("A b", "z"))}):
            assert "\n" not in finding.message

    def test_a_hundred_thousand_rows_take_seconds(self) -> None:
        texts = [f"Sentence number {i % 70_000}, of about twelve words, which say little." for i in range(110_000)]
        labels = ["x" if i % 3 else "y" for i in range(110_000)]
        rows = list(range(1, 110_001))
        start = time.perf_counter()
        findings = examine(
            {
                "train": SplitTexts(texts[:100_000], labels[:100_000], rows[:100_000]),
                "validation": SplitTexts(texts[100_000:], labels[100_000:], rows[100_000:]),
            }
        )
        assert time.perf_counter() - start < 10
        assert "30,000 of 100,000 rows" in one(findings, "duplicates").message.replace("train: ", "")


class TestRealSplits:
    def test_chnsenticorp_has_338_dev_rows_in_train_and_8_only_with_the_other_label(self, shared_data: Path) -> None:
        folder = shared_data / "chnsenticorp"
        train, dev = (read_tsv(folder / f"{n}.tsv", text=1, label=0, header=True) for n in ("train", "dev"))
        found = leakage(train, dev)
        assert (found.rows, len(found.exact), len(found.normalised), len(found.conflicts)) == (
            1200,
            338,
            4,
            8,
        )
        findings = examine({"train": train, "validation": dev})
        assert "338 of 1,200 rows" in one(findings, "leakage").message
        assert "8 of 1,200 rows" in one(findings, "leakage_conflicts").message

    def test_every_match_is_a_row_with_that_text(self, shared_data: Path) -> None:
        folder = shared_data / "chnsenticorp"
        train, dev = (read_tsv(folder / f"{n}.tsv", text=1, label=0, header=True) for n in ("train", "dev"))
        found = leakage(train, dev)
        assert all(dev.texts[row - 1] == train.texts[first - 1] for row, first in found.exact)
        assert all(dev.texts[row - 1] != train.texts[first - 1] for row, first in found.normalised)
        assert all(dev.labels[row - 1] != train.labels[first - 1] for row, first in found.conflicts)

    def test_sst2_sentences_have_next_to_no_leakage(self, shared_data: Path) -> None:
        folder = shared_data / "sst2_sentences"
        train, dev = (read_tsv(folder / f"{n}.tsv", text=0, label=1, header=False) for n in ("train", "dev"))
        found = leakage(train, dev)
        assert (len(found.exact), len(found.normalised), found.conflicts) == (0, 1, [])


class TestBalance:
    def test_classes_are_counted_from_the_most_frequent_down(self) -> None:
        found = balance(["b", "a", None, "a", "c", "a"])
        assert list(found.counts.items()) == [("a", 3), ("b", 1), ("c", 1)]
        assert (found.rows, found.share("a"), found.single_row) == (5, 0.6, ["b", "c"])
        assert found.counts[found.rarest] == 1


class TestSplitTexts:
    def test_columns_of_different_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="2 texts, 1 labels, 2 row numbers"):
            SplitTexts(["a", "b"], ["x"], [1, 2])


def test_the_checks_need_no_torch() -> None:
    code = "import sys, nlp_finetune.data.checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
