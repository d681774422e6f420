"""States become items and items states again: padding apart, nothing changes on the way through the disk."""

import numpy as np
import pytest
import torch

from nlp_finetune.learning.shortcut import Form, Unfit, form_of, items_of, placed

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 1, 1]])  # padded right, right, left


def states(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_states_of_tokens_come_back_where_the_tokens_are(dtype: torch.dtype) -> None:
    given, batch = states(3, 4, 5, dtype=dtype), {"attention_mask": MASK}
    form = form_of(given, batch, 3)
    assert form.by_token
    items = items_of(given, batch, 3, form)
    assert [len(own) for own in items] == [3, 1, 2]
    stored = [form.to_disk(own) for own in items]
    assert all(own.dtype == form.stored for own in stored)
    wider = {"attention_mask": torch.nn.functional.pad(MASK, (0, 2))}
    again = placed(form.from_disk(np.concatenate(stored)), wider, form)
    assert again.dtype == dtype
    assert torch.equal(again[:, :4][MASK.bool()], given[MASK.bool()])
    assert not again[wider["attention_mask"] == 0].any()


def test_states_of_rows_are_one_item_each() -> None:
    given = states(3, 6)
    form = form_of(given, {"attention_mask": MASK}, 3)
    assert form == Form(False, torch.float32)
    items = items_of(given, {}, 3, form)
    assert torch.equal(placed(torch.cat(items), {}, form), given)


def test_images_without_a_mask_are_rows_whatever_their_shape() -> None:
    assert not form_of(states(2, 8, 3, 3), {"pixel_values": states(2, 3, 9, 9)}, 2).by_token


@pytest.mark.parametrize("rows", [2, 4])
def test_states_that_are_not_those_of_the_rows_are_refused(rows: int) -> None:
    with pytest.raises(Unfit):
        form_of(states(3, 4, 5), {"attention_mask": MASK}, rows)
    with pytest.raises(Unfit):
        form_of(states(3, 5), {"attention_mask": MASK}, rows)
