"""Rows that are mixed with others: which, how much, and what a batch of them is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from nlp_finetune.data.drawing import DrawnRows
from nlp_finetune.data.image_inputs import collate
from nlp_finetune.data.mixing import (
    PARTNER_IDS,
    PARTNER_LABELS,
    PARTNER_PIXELS,
    PIXEL_SHARE,
    SHARE,
    Mix,
    MixedImages,
    MixedTexts,
    Mixing,
    part,
)


def test_a_mix_depends_on_seed_epoch_and_row_alone() -> None:
    mixing = Mixing([1] * 50, seed=3, mixup=0.4)
    np.random.seed(0)
    first = [mixing.of(epoch, row) for epoch in range(2) for row in range(50)]
    assert [mixing.of(epoch, row) for epoch in range(2) for row in range(50)] == first
    assert first[:50] != first[50:]
    assert first != [Mixing([1] * 50, seed=4, mixup=0.4).of(epoch, row) for epoch in range(2) for row in range(50)]


def test_every_row_keeps_at_least_half_of_itself() -> None:
    shares = [Mixing([1] * 50, seed=3, mixup=1.0).of(0, row).share for row in range(50)]
    assert min(shares) >= 0.5
    # Beta(1, 1) is uniform, so the larger part is 3/4 on average.
    assert np.mean(shares) == pytest.approx(0.75, abs=0.06)


def test_partners_are_drawn_from_all_rows_of_one_length() -> None:
    partners = [Mixing([1] * 20, seed=3, mixup=1.0).of(epoch, 0).partner for epoch in range(400)]
    counts = Counter(partners)
    assert set(counts) == set(range(20))
    assert max(counts.values()) < 45


def test_partners_are_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(5, 100, size=400).tolist()
    mixing = Mixing(lengths, seed=3, mixup=1.0)
    apart = [abs(lengths[row] - lengths[mixing.of(0, row).partner]) for row in range(400)]
    assert np.mean(apart) < 8  # two random rows are 32 apart


def test_chances_decide_who_is_a_partner() -> None:
    chances = np.array([0.0, 0.25, 0.75, 0.0])
    partners = Counter(Mixing([1] * 4, seed=0, mixup=1.0, chances=chances).of(0, row).partner for row in range(4))
    many = Counter(Mixing([1] * 4, seed=0, mixup=1.0, chances=chances).of(epoch, 0).partner for epoch in range(400))
    assert set(partners) <= {1, 2}
    assert many[2] == pytest.approx(300, abs=40)


def test_with_both_either_is_drawn_and_with_one_that_one() -> None:
    both = [Mixing([1] * 9, seed=0, mixup=1.0, cutmix=1.0).of(epoch, 0).middle is None for epoch in range(100)]
    assert 30 < sum(both) < 70
    assert all(Mixing([1] * 9, seed=0, mixup=1.0).of(epoch, 0).middle is None for epoch in range(20))
    assert not any(Mixing([1] * 9, seed=0, cutmix=1.0).of(epoch, 0).middle is None for epoch in range(20))


def test_drawn_rows_bring_their_partner_as_the_same_epoch_sees_it() -> None:
    def change(row: Any, random: np.random.Generator) -> dict[str, Any]:
        return {**row, "drawn": random.random()}

    data = [{"row": row} for row in range(10)]
    rows = DrawnRows(data, transform=change, seed=1, mixing=Mixing([1] * 10, seed=1, mixup=1.0))
    plain = DrawnRows(data, transform=change, seed=1)
    for draw in (3, 17, 25):
        found = rows[draw]
        partner = found["mix"].partner
        assert found["partner"] == plain[draw // 10 * 10 + partner]
        assert {"row": found["row"], "drawn": found["drawn"]} == plain[draw]


def pictures(*mixes: Mix) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    rows = [
        {"pixels": random.integers(0, 256, (16, 16, 3), dtype=np.uint8), "labels": i} for i in range(len(mixes) + 1)
    ]
    return [{**rows[i], "mix": mix, "partner": rows[-1]} for i, mix in enumerate(mixes)]


def test_images_to_be_mixed_bring_the_bytes_of_both() -> None:
    rows = pictures(Mix(2, 1.0, None), Mix(2, 0.7, None))
    batch = MixedImages(collate)(rows)
    assert torch.equal(batch["pixel_values"], collate(rows)["pixel_values"])
    assert torch.equal(batch[PARTNER_PIXELS], collate([row["partner"] for row in rows])["pixel_values"])
    assert batch[PARTNER_PIXELS].dtype == torch.uint8
    for name in (SHARE, PIXEL_SHARE):
        torch.testing.assert_close(batch[name], torch.tensor([1.0, 0.7]))
    assert batch["labels"].tolist() == [0, 1]
    assert batch[PARTNER_LABELS].tolist() == [2, 2]


def test_cutmix_pastes_one_part_and_the_share_is_what_is_left() -> None:
    rows = pictures(Mix(1, 0.75, (0.5, 0.5)), Mix(1, 0.75, (0.0, 1.0)), Mix(1, 1.0, (0.3, 0.3)))
    own = collate(rows)["pixel_values"]
    batch = MixedImages(collate)(rows)
    other = [(batch["pixel_values"][i] != own[i]).any(0) for i in range(3)]
    assert [int(mask.sum()) for mask in other] == [64, 16, 0]  # half of each side in the middle, a quarter in a corner
    assert batch[SHARE].tolist() == [0.75, 0.9375, 1.0]
    assert other[0][4:12, 4:12].all()
    assert other[1][0:4, 12:16].all()
    assert PARTNER_PIXELS not in batch


def test_what_cutmix_has_pasted_is_not_mixed_again() -> None:
    batch = MixedImages(collate)(pictures(Mix(2, 0.75, (0.5, 0.5)), Mix(2, 0.7, None)))
    torch.testing.assert_close(batch[PIXEL_SHARE], torch.tensor([1.0, 0.7]))
    torch.testing.assert_close(batch[SHARE], torch.tensor([0.75, 0.7]))


def test_a_part_never_leaves_the_image() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        mix = Mix(0, float(random.uniform(0.5, 1)), (float(random.random()), float(random.random())))
        down, across = part(20, 30, mix)
        assert 0 <= down.start <= down.stop <= 20
        assert 0 <= across.start <= across.stop <= 30


def tokens(rows: Any) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows]),
        "attention_mask": torch.tensor(
            [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
        ),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def test_texts_keep_their_length_and_take_what_their_partner_has_there() -> None:
    partners = [{"input_ids": [21, 22], "labels": 1}, {"input_ids": [31, 32, 33, 34], "labels": 0}]
    rows = [
        {"input_ids": [1, 2, 3], "labels": 0, "mix": Mix(0, 0.6, None), "partner": partners[0]},
        {"input_ids": [4, 5], "labels": 1, "mix": Mix(1, 0.9, None), "partner": partners[1]},
    ]
    batch = MixedTexts(tokens, left=False)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch[PARTNER_IDS].tolist() == [[21, 22, 3], [31, 32, 0]]
    assert batch[PARTNER_LABELS].tolist() == [1, 0]
    torch.testing.assert_close(batch[SHARE], torch.tensor([0.6, 0.9]))


def test_texts_padded_on_the_left_are_lined_up_on_the_right() -> None:
    def left(rows: Any) -> dict[str, torch.Tensor]:
        found = tokens([{**row, "input_ids": row["input_ids"][::-1]} for row in rows])
        return {**found, **{name: found[name].flip(1) for name in ("input_ids", "attention_mask")}}

    rows = [
        {"input_ids": [1, 2, 3], "labels": 0, "mix": Mix(0, 0.6, None), "partner": {"input_ids": [8, 9], "labels": 1}}
    ]
    batch = MixedTexts(left, left=True)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3]]
    assert batch[PARTNER_IDS].tolist() == [[1, 8, 9]]
