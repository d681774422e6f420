"""Truncation is measured in rows and in tokens, with what a larger length would save."""

from __future__ import annotations

import numpy as np
import pytest

from nlp_finetune.data.lengths import length_report, percent


def test_rows_and_tokens_are_counted_as_lost() -> None:
    now = length_report(np.array([50, 100, 150, 300]), 100).now
    assert now.rows == 0.5
    assert now.tokens == pytest.approx((50 + 200) / 600)


def test_a_row_of_exactly_the_maximal_length_is_not_cut() -> None:
    assert length_report(np.array([128, 127]), 128).now.rows == 0


def test_larger_lengths_end_where_nothing_is_lost() -> None:
    report = length_report(np.array([50, 100, 150, 300]), 100, limit=4096)
    assert [cut.max_length for cut in report.larger] == [128, 256, 512]
    assert report.larger[-1].tokens == 0


@pytest.mark.parametrize(
    ("max_length", "limit", "expected"),
    [
        (128, 512, [256, 512]),
        (32, 512, [64, 128, 256, 512]),
        (128, 200, [200]),
        (128, 128, []),
        (128, None, [256, 512, 1024, 2048]),
        (600, 10**30, [1024, 2048, 4096, 8192]),
    ],
)
def test_larger_lengths_stop_at_the_models_limit(max_length: int, limit: int | None, expected: list[int]) -> None:
    report = length_report(np.array([10, 100_000]), max_length, limit=limit)
    assert [cut.max_length for cut in report.larger] == expected


def test_percentiles_are_lengths_that_some_row_has() -> None:
    report = length_report(np.arange(1, 201) * 3, 10_000)
    assert report.percentiles == {50: 300, 75: 450, 90: 540, 95: 570, 99: 594}
    assert (report.longest, report.rows) == (600, 200)


def test_the_line_says_what_is_lost_now_and_at_larger_lengths() -> None:
    lengths = np.array([100] * 8 + [200, 400])
    assert length_report(lengths, 128, limit=512).line() == (
        "20 % of rows cut, 24.6 % of tokens lost at 128; 256 -> 10.3 %, 512 -> 0 % of tokens"
    )


def test_the_line_says_where_nothing_is_cut_and_where_nothing_can_be_saved() -> None:
    lengths = np.array([100, 300])
    assert length_report(lengths, 300).line() == "no row is cut at 300: the longest has 300 tokens"
    assert length_report(lengths, 128, limit=128).line().endswith("lost at 128, the model's limit")


def test_no_rows_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="no rows"):
        length_report(np.array([]), 128)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.124, "12.4 %"),
        (0.31, "31 %"),
        (1e-5, "< 0.1 %"),
        (0.99999, "> 99.9 %"),
    ],
)
def test_a_share_is_written_without_hiding_what_is_not_zero_or_not_all(share: float, text: str) -> None:
    assert percent(share) == text
