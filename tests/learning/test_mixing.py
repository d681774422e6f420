"""The objective of mixed rows by its defining properties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from nlp_finetune.data.image_inputs import Preprocessing
from nlp_finetune.data.mixing import PARTNER_IDS, PARTNER_LABELS, PARTNER_PIXELS, PIXEL_SHARE, SHARE
from nlp_finetune.learning.losses import cross_entropy, focal
from nlp_finetune.learning.mixing import MixedEmbeddings, mixed, mixed_pixels, mixed_targets
from nlp_finetune.learning.regularizers import word_embeddings

IDS, PARTNERS = torch.tensor([[5, 6, 7], [8, 9, 10]]), torch.tensor([[11, 12, 13], [14, 15, 16]])


def tiny_bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


def plain(model: Any, batch: Any, num_items: Any) -> tuple[Tensor, Any]:
    assert set(batch) == {"input_ids", "labels"}
    outputs = model(input_ids=batch["input_ids"])
    return cross_entropy(outputs.logits, batch["labels"]) / num_items, outputs


def batch_of(share: list[float], labels: list[int] | None = None) -> dict[str, Tensor]:
    return {
        "input_ids": IDS, "labels": torch.tensor(labels or [0, 2]), PARTNER_IDS: PARTNERS,
        PARTNER_LABELS: torch.tensor([1, 0]), SHARE: torch.tensor(share),
    }  # fmt: skip


def loss_and_gradient(objective: Any, model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    model.zero_grad()
    loss, _ = objective(model, batch, torch.tensor(2))
    loss.backward()
    return loss.detach(), word_embeddings(model).weight.grad.clone()


@pytest.mark.parametrize("classes", [2, 5])
def test_targets_sum_to_one_and_are_the_shares_of_both(classes: int) -> None:
    own, partner = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1])
    found = mixed_targets(own, partner, torch.tensor([0.6, 1.0, 0.7]), classes=classes)
    torch.testing.assert_close(found.sum(1), torch.ones(3))
    torch.testing.assert_close(found[:, :2], torch.tensor([[0.6, 0.4], [0.0, 1.0], [0.0, 1.0]]))


def test_numbers_and_lists_of_labels_keep_their_form() -> None:
    share = torch.tensor([0.75, 1.0])
    numbers = mixed_targets(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), share, classes=1)
    torch.testing.assert_close(numbers, torch.tensor([1.5, 2.0]))
    lists = mixed_targets(torch.eye(2), 1 - torch.eye(2), share, classes=2)
    torch.testing.assert_close(lists, torch.tensor([[0.75, 0.25], [0.0, 1.0]]))


def test_a_share_of_one_changes_nothing() -> None:
    model = tiny_bert()
    loss, gradient = loss_and_gradient(mixed(plain, classes=3), model, batch_of([1.0, 1.0]))
    expected, expected_gradient = loss_and_gradient(plain, model, {"input_ids": IDS, "labels": torch.tensor([0, 2])})
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_a_batch_without_partners_is_left_as_it_is() -> None:
    model, batch = tiny_bert(), {"input_ids": IDS, "labels": torch.tensor([0, 2])}
    assert mixed(plain, classes=3)(model, batch, 2)[0] == plain(model, batch, 2)[0]


def test_rows_mixed_half_and_half_do_not_care_which_is_the_partner() -> None:
    model = tiny_bert()
    batch = batch_of([0.5, 0.5])
    swapped = {
        **batch, "input_ids": PARTNERS, PARTNER_IDS: IDS, "labels": batch[PARTNER_LABELS],
        PARTNER_LABELS: batch["labels"],
    }  # fmt: skip
    objective = mixed(plain, classes=3)
    torch.testing.assert_close(objective(model, batch, 2)[0], objective(model, swapped, 2)[0])


def test_embeddings_are_the_weighted_mean_and_no_hook_stays_behind() -> None:
    table = word_embeddings(tiny_bert())
    share = torch.tensor([0.8, 0.5])
    with MixedEmbeddings(table, PARTNERS, share):
        found = table(IDS)
    torch.testing.assert_close(found, share.view(-1, 1, 1) * table(IDS) + (1 - share).view(-1, 1, 1) * table(PARTNERS))
    assert not table._forward_hooks
    assert not table._forward_pre_hooks


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 4.0])])
@pytest.mark.parametrize("loss", [cross_entropy, focal])
def test_the_loss_of_soft_targets_is_the_mean_of_the_losses_of_both(loss: Any, weights: Tensor | None) -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    own, partner = torch.tensor([0, 1, 2, 2]), torch.tensor([2, 1, 0, 1])
    soft = mixed_targets(own, partner, torch.full((4,), 0.7), classes=3)
    expected = 0.7 * loss(logits, own, weights=weights) + 0.3 * loss(logits, partner, weights=weights)
    torch.testing.assert_close(loss(logits, soft, weights=weights), expected)


def test_smoothing_comes_on_top_of_soft_targets() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    own = torch.tensor([0, 1, 2, 2])
    hard = cross_entropy(logits, own, label_smoothing=0.1)
    torch.testing.assert_close(cross_entropy(logits, F.one_hot(own, 3).float(), label_smoothing=0.1), hard)


HOW = Preprocessing(32, (32, 32), 2, (0.5, 0.25, 0.75), (0.2, 0.25, 0.3))


def bytes_of(rows: int) -> Tensor:
    return torch.randint(0, 256, (rows, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(rows))


def test_mixed_images_are_the_weighted_mean_of_normalised_ones() -> None:
    own, partner = bytes_of(3).contiguous(memory_format=torch.channels_last), bytes_of(4)[:3]
    share = torch.tensor([1.0, 0.7, 0.5])
    found = HOW.normalised(mixed_pixels(own, partner, share))
    weight = share.view(-1, 1, 1, 1)
    torch.testing.assert_close(found, weight * HOW.normalised(own) + (1 - weight) * HOW.normalised(partner))
    assert torch.equal(found[0], HOW.normalised(own)[0])


def test_the_objective_sees_mixed_pixels_and_nothing_of_the_partners() -> None:
    seen = []

    def objective(_model: Any, batch: Any, _items: Any) -> tuple[Tensor, Any]:
        seen.append(batch)
        return torch.zeros(()), None

    batch = {
        "pixel_values": bytes_of(2), "labels": torch.tensor([0, 1]), PARTNER_LABELS: torch.tensor([1, 1]),
        SHARE: torch.tensor([0.6, 0.8]), PARTNER_PIXELS: bytes_of(5)[:2], PIXEL_SHARE: torch.tensor([0.6, 1.0]),
    }  # fmt: skip
    mixed(objective, classes=2)(None, batch, 2)
    assert seen[0].keys() == {"pixel_values", "labels"}
    assert torch.equal(seen[0]["pixel_values"][1], bytes_of(2)[1].float())
