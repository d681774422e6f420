"""Losses are sums over items, so that any cut into micro batches gives the same step."""

from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nlp_finetune.errors import InputError
from nlp_finetune.learning.losses import IGNORED, LOSSES, WEIGHTED, build_loss

CLASSES = 5


def make_batch(name: str, *, rows: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random logits and targets of the kind that a loss takes."""
    random = torch.Generator().manual_seed(seed)
    if name == "bce":
        return (
            torch.randn(rows, CLASSES, generator=random) * 3,
            torch.randint(0, 2, (rows, CLASSES), generator=random).float(),
        )
    if name in ("mse", "huber"):
        return torch.randn(rows, 1, generator=random) * 3, torch.randn(rows, generator=random) * 3
    return (
        torch.randn(rows, CLASSES, generator=random) * 3,
        torch.randint(0, CLASSES, (rows,), generator=random),
    )


def focal_by_definition(logits: Tensor, targets: Tensor) -> Tensor:
    true = logits.softmax(-1)[torch.arange(len(targets)), targets]
    return (-((1 - true) ** 2) * true.log()).mean()


MEANS = {
    "cross_entropy": F.cross_entropy,
    "focal": focal_by_definition,
    "bce": F.binary_cross_entropy_with_logits,
    "mse": lambda logits, targets: F.mse_loss(logits[:, 0], targets),
    "huber": lambda logits, targets: F.huber_loss(logits[:, 0], targets),
}


def test_every_loss_of_the_table_has_a_reference_here() -> None:
    assert set(MEANS) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_the_mean_times_the_items_it_counts(name: str) -> None:
    logits, targets = make_batch(name)
    torch.testing.assert_close(build_loss(name)(logits, targets), MEANS[name](logits, targets) * targets.numel())


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("cut", [1, 7, 24])
def test_sums_of_micro_batches_over_all_items_give_value_and_gradient_of_the_mean(name: str, cut: int) -> None:
    logits, targets = make_batch(name)
    logits.requires_grad_()
    whole = MEANS[name](logits, targets)
    (expected,) = torch.autograd.grad(whole, logits)
    loss = build_loss(name)
    pieces = [
        loss(left, right) / targets.numel() for left, right in zip(logits.split(cut), targets.split(cut), strict=True)
    ]
    (gradient,) = torch.autograd.grad(torch.stack(pieces).sum(), logits)
    torch.testing.assert_close(torch.stack(pieces).sum(), whole)
    torch.testing.assert_close(gradient, expected)


def test_label_smoothing_is_torchs() -> None:
    logits, targets = make_batch("cross_entropy")
    expected = F.cross_entropy(logits, targets, label_smoothing=0.2) * len(targets)
    torch.testing.assert_close(build_loss("cross_entropy", label_smoothing=0.2)(logits, targets), expected)


def test_focal_with_gamma_zero_is_cross_entropy() -> None:
    logits, targets = make_batch("focal")
    torch.testing.assert_close(
        build_loss("focal", gamma=0.0)(logits, targets),
        build_loss("cross_entropy")(logits, targets),
        rtol=1e-6,
        atol=0,
    )


@pytest.mark.parametrize("name", WEIGHTED)
def test_class_weights_of_one_change_nothing(name: str) -> None:
    logits, targets = make_batch(name)
    assert torch.equal(build_loss(name, weights=[1.0] * CLASSES)(logits, targets), build_loss(name)(logits, targets))


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_a_class_weighs_as_if_its_rows_stood_there_so_often(name: str) -> None:
    logits, targets = make_batch(name)
    doubled = targets == 2
    weights = [1.0, 1.0, 2.0, 1.0, 1.0]
    expected = build_loss(name)(torch.cat([logits, logits[doubled]]), torch.cat([targets, targets[doubled]]))
    torch.testing.assert_close(build_loss(name, weights=weights)(logits, targets), expected)


def test_positive_weights_are_torchs() -> None:
    logits, targets = make_batch("bce")
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    expected = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="sum")
    torch.testing.assert_close(build_loss("bce", weights=weights.tolist())(logits, targets), expected)


def test_a_class_that_weighs_nothing_is_not_learned_from() -> None:
    logits, targets = make_batch("cross_entropy")
    logits.requires_grad_()
    loss = build_loss("cross_entropy", weights=[0.0, 1.0, 1.0, 1.0, 1.0])
    (gradient,) = torch.autograd.grad(loss(logits, targets), logits)
    assert gradient[targets == 0].abs().sum() == 0


@pytest.mark.parametrize("name", ["mse", "huber"])
def test_numbers_have_no_classes_to_weigh(name: str) -> None:
    with pytest.raises(InputError, match="class_weights"):
        build_loss(name, weights=[1.0])


def test_focal_plays_easy_rows_down_more_than_hard_ones() -> None:
    logits, targets = torch.tensor([[4.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    share = [
        build_loss("focal")(logits[i : i + 1], targets[i : i + 1])
        / build_loss("cross_entropy")(logits[i : i + 1], targets[i : i + 1])
        for i in range(2)
    ]
    assert share[0] < 0.001
    assert share[1] > 0.5


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_has_finite_gradients_on_rows_that_are_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = build_loss("focal", gamma=gamma)(logits, torch.tensor([0, 0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [
        {"name": "cross_entropy", "label_smoothing": 0.1},
        {"name": "focal"},
        {"name": "focal", "weights": [1.0, 2.0, 3.0, 4.0, 5.0]},
        {"name": "cross_entropy", "weights": [1.0, 2.0, 3.0, 4.0, 5.0]},
    ],
)
def test_ignored_targets_add_nothing_to_value_or_gradient(options: dict[str, object]) -> None:
    loss = build_loss(**options)  # type: ignore[arg-type]
    logits, targets = make_batch("cross_entropy")
    logits.requires_grad_()
    targets[::3] = IGNORED
    kept = targets != IGNORED
    (gradient,) = torch.autograd.grad(loss(logits, targets), logits)
    torch.testing.assert_close(loss(logits, targets), loss(logits[kept], targets[kept]))
    assert gradient[~kept].abs().sum() == 0
    assert gradient[kept].abs().sum() > 0


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_a_micro_batch_of_ignored_targets_only_gives_zero(name: str) -> None:
    logits, targets = make_batch(name)
    assert build_loss(name)(logits, torch.full_like(targets, IGNORED)) == 0


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_rows_of_tokens_count_every_token(name: str) -> None:
    logits, targets = make_batch(name)
    loss = build_loss(name)
    torch.testing.assert_close(loss(logits.reshape(4, 6, CLASSES), targets.reshape(4, 6)), loss(logits, targets))


@pytest.mark.parametrize("name", LOSSES)
def test_bf16_logits_are_computed_in_float32(name: str) -> None:
    logits, targets = make_batch(name, rows=400)
    logits = logits.bfloat16()
    loss = build_loss(name)(logits, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, build_loss(name)(logits.float(), targets), rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_leaves_the_loss_in_float32(name: str) -> None:
    logits, targets = make_batch(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = build_loss(name)(logits, targets)
    torch.testing.assert_close(inside, build_loss(name)(logits, targets), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mse", "huber"])
def test_a_column_of_numbers_and_a_flat_one_are_the_same(name: str) -> None:
    logits, targets = make_batch(name)
    assert build_loss(name)(logits, targets) == build_loss(name)(logits[:, 0], targets)


@pytest.mark.parametrize("name", LOSSES)
def test_shapes_that_would_broadcast_are_refused(name: str) -> None:
    logits, targets = make_batch(name)
    with pytest.raises(ValueError, match="do not fit"):
        build_loss(name)(logits, targets[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "hinge"}, "no loss 'hinge'"),
        ({"name": "cross_entropy", "label_smoothing": 1.0}, "not from 0 to below 1"),
        ({"name": "focal", "gamma": -1.0}, "negative"),
        ({"name": "focal", "gamma": float("nan")}, "not a number"),
        ({"name": "focal", "label_smoothing": 0.1}, "focal does not use it"),
        ({"name": "mse", "gamma": 1.0}, "mse does not use it"),
    ],
)
def test_values_that_are_wrong_or_would_be_ignored_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_loss(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_can_be_sent_to_another_process(name: str) -> None:
    logits, targets = make_batch(name)
    loss = build_loss(name)
    assert pickle.loads(pickle.dumps(loss))(logits, targets) == loss(logits, targets)
