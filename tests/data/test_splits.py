"""Stratified subsets: shares, order, determinism."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from datasets import Dataset

from nlp_finetune.data.splits import hold_out, limit
from nlp_finetune.errors import InputError


def data(sizes: dict[str, int]) -> Dataset:
    """Rows of classes of these sizes, the classes interleaved."""
    names = [name for name, size in sizes.items() for _ in range(size)]
    names = names[::2] + names[1::2]
    return Dataset.from_dict({"label": names, "row": list(range(1, len(names) + 1))})


def label(row: Mapping[str, Any]) -> str | None:
    name: str | None = row["label"]
    return name


def nothing(row: Mapping[str, Any]) -> str | None:
    return None


def counts(rows: Dataset) -> dict[str, int]:
    return dict(Counter(rows["label"]))


def test_every_class_gives_its_share() -> None:
    stays, held_out = hold_out(data({"a": 80, "b": 40, "c": 10}), fraction=0.1, seed=1, stratum=label)
    assert counts(held_out) == {"a": 8, "b": 4, "c": 1}
    assert counts(stays) == {"a": 72, "b": 36, "c": 9}


def test_both_parts_together_are_the_rows_in_their_order() -> None:
    parts = hold_out(data({"a": 30, "b": 11}), fraction=0.3, seed=1, stratum=label)
    rows = [part["row"][:] for part in parts]
    assert rows == [sorted(part) for part in rows]
    assert sorted(rows[0] + rows[1]) == list(range(1, 42))


@pytest.mark.parametrize("stratum", [label, nothing])
def test_the_same_seed_gives_the_same_split_and_another_seed_another(stratum: Any) -> None:
    rows = data({"a": 60, "b": 40})
    drawn = [hold_out(rows, fraction=0.2, seed=seed, stratum=stratum)[1]["row"][:] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_class_with_one_row_stays() -> None:
    for seed in range(20):
        stays, _ = hold_out(data({"a": 6, "once": 1}), fraction=0.5, seed=seed, stratum=label)
        assert "once" in stays["label"]


def test_the_last_row_of_a_class_stays_however_much_is_held_out() -> None:
    stays, held_out = hold_out(data({"a": 5, "b": 3, "c": 2}), fraction=0.95, seed=1, stratum=label)
    assert counts(stays) == {"a": 1, "b": 1, "c": 1}
    assert len(held_out) == 7


@pytest.mark.parametrize("sizes", [{"a": 2}, {"a": 1, "b": 1}, {"a": 3, "b": 1}])
def test_at_least_one_row_is_held_out_and_one_stays(sizes: dict[str, int]) -> None:
    stays, held_out = hold_out(data(sizes), fraction=0.01, seed=1, stratum=label)
    assert len(held_out) == 1
    assert len(stays) == sum(sizes.values()) - 1


def test_rows_without_classes_are_drawn_from_all() -> None:
    _, held_out = hold_out(data({"a": 90, "b": 10}), fraction=0.25, seed=1, stratum=nothing)
    assert len(held_out) == 25


def test_one_row_cannot_be_split() -> None:
    with pytest.raises(InputError, match="too few rows"):
        hold_out(data({"a": 1}), fraction=0.5, seed=1, stratum=label)


@pytest.mark.parametrize("fraction", [0, 1, 1.5, -0.1])
def test_a_share_outside_of_zero_and_one_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        hold_out(data({"a": 9}), fraction=fraction, seed=1, stratum=label)


def test_a_limit_keeps_proportions_and_order() -> None:
    rows = limit(data({"a": 60, "b": 30, "c": 10}), count=20, seed=1, stratum=label)
    assert counts(rows) == {"a": 12, "b": 6, "c": 2}
    assert rows["row"][:] == sorted(rows["row"])


def test_a_limit_keeps_a_row_of_every_class_if_it_can() -> None:
    rows = limit(data({"a": 1000, "b": 1, "c": 1}), count=3, seed=1, stratum=label)
    assert counts(rows) == {"a": 1, "b": 1, "c": 1}


def test_a_limit_below_the_number_of_classes_takes_the_largest() -> None:
    rows = limit(data({"a": 50, "b": 40, "c": 1}), count=2, seed=1, stratum=label)
    assert counts(rows) == {"a": 1, "b": 1}


def test_a_limit_that_is_not_reached_changes_nothing() -> None:
    rows = data({"a": 3, "b": 2})
    assert limit(rows, count=5, seed=1, stratum=label) is rows


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\.limit=0"):
        limit(data({"a": 3}), count=0, seed=1, stratum=label)


def test_the_same_seed_gives_the_same_subset() -> None:
    rows = data({"a": 60, "b": 40})
    drawn = [limit(rows, count=30, seed=seed, stratum=label)["row"][:] for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("count", range(1, 40))
def test_every_limit_is_met_exactly(count: int) -> None:
    rows = limit(data({"a": 17, "b": 11, "c": 7, "d": 4, "e": 1}), count=count, seed=1, stratum=label)
    assert len(rows) == count


def test_a_row_is_seen_whole_by_the_stratum() -> None:
    seen: list[dict[str, Any]] = []

    def remember(row: Mapping[str, Any]) -> str | None:
        seen.append(dict(row))
        return None

    hold_out(data({"a": 1, "b": 1}), fraction=0.5, seed=1, stratum=remember)
    assert seen == [{"label": "a", "row": 1}, {"label": "b", "row": 2}]


def test_a_column_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="nope"):
        limit(data({"a": 3}), count=1, seed=1, stratum=lambda row: str(row["nope"]))
