"""Times in recipes."""

import pytest

from nlp_finetune.recipe.durations import is_duration, seconds


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5d", 129600)]
)
def test_a_time_is_read(text: str, expected: float) -> None:
    assert is_duration(text)
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["eval", "epoch", "30", "m", "3 h", "-1h", "1h30", 30])
def test_what_is_no_time_is_none(text: object) -> None:
    assert not is_duration(text)
