"""Averages of weights by their defining properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nlp_finetune.data.batching import BatchPlan
from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.learning.averaging import WeightAverage, ema_share, greedy_soup, mean_weights, swa_share


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def walk(model: nn.Module, average: WeightAverage, steps: int) -> list[dict[str, torch.Tensor]]:
    """Move weights and statistics at random; gives the state after each step, as the average was shown it."""
    seen = []
    for step in range(1, steps + 1):
        model(torch.randn(8, 3))
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight))
        share = average.share(step, average.taken)
        if share is not None:
            average.take(share)
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
    return seen


def averaged(model: nn.Module, average: WeightAverage) -> dict[str, torch.Tensor]:
    with average.applied():
        return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_moving_average_with_decay_zero_is_the_model() -> None:
    model = network()
    average = WeightAverage(model, share=ema_share(0.0))
    last = walk(model, average, 5)[-1]
    assert all(torch.equal(value, last[name]) for name, value in averaged(model, average).items())


def test_a_moving_average_keeps_the_decay_of_the_former_one_when_it_is_warm() -> None:
    share = ema_share(0.9)
    assert share(1000, 1000) == pytest.approx(0.1)
    assert [share(step, step) for step in (0, 1)] == pytest.approx([0.9, 9 / 11])


def test_swa_is_the_mean_of_the_weights_and_statistics_after_its_start() -> None:
    plan = BatchPlan([1] * 8, batch_size=4, steps=10, seed=0)
    model = network()
    average = WeightAverage(model, share=swa_share(plan, start=0.5, every="epoch"))
    seen = walk(model, average, 10)
    assert average.taken == 3
    for name, value in averaged(model, average).items():
        if value.is_floating_point():
            torch.testing.assert_close(value, torch.stack([seen[step - 1][name] for step in (6, 8, 10)]).mean(0))


def test_before_its_start_swa_is_the_model() -> None:
    plan = BatchPlan([1] * 8, batch_size=4, steps=10, seed=0)
    model = network()
    average = WeightAverage(model, share=swa_share(plan, start=0.5, every=1))
    last = walk(model, average, 5)[-1]
    assert average.taken == 0
    assert all(torch.equal(value, last[name]) for name, value in averaged(model, average).items())


def test_the_last_weights_count_wherever_a_run_ends() -> None:
    share = swa_share(BatchPlan([1] * 8, batch_size=4, steps=9, seed=0), start=0.9, every="epoch")
    assert share(9, 0) == 1.0


def test_weights_are_bit_for_bit_as_before_after_the_average_was_applied() -> None:
    model = network()
    average = WeightAverage(model, share=ema_share(0.9))
    last = walk(model, average, 4)[-1]
    assert any(not torch.equal(value, last[name]) for name, value in averaged(model, average).items())
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    assert all(torch.equal(value, last[name]) for name, value in model.state_dict().items())


def test_what_is_frozen_is_not_averaged() -> None:
    model = network()
    model[0].requires_grad_(False)
    average = WeightAverage(model, share=ema_share(0.9))
    walk(model, average, 2)
    assert set(average.tensors()) == {
        "1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight", "2.bias",
    }  # fmt: skip


def test_an_average_goes_on_from_its_state_bit_for_bit() -> None:
    model = network()
    whole = WeightAverage(model, share=ema_share(0.9))
    first = WeightAverage(model, share=ema_share(0.9))
    for average in (whole, first):
        average.take(1.0)
    again = WeightAverage(model, share=ema_share(0.9))
    again.load(first.tensors())
    again.load_state_dict(first.state_dict())
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    for average in (whole, again):
        average.take(0.3)
    assert all(torch.equal(value, whole.tensors()[name]) for name, value in again.tensors().items())


def test_the_average_of_another_model_is_refused() -> None:
    average = WeightAverage(network(), share=ema_share(0.9))
    with pytest.raises(NlpFinetuneError, match=r"not of these weights: 5\.weight"):
        average.load({**average.named, "5.weight": torch.ones(1)})


def test_a_soup_of_one_is_itself() -> None:
    weights = network().state_dict()
    mean = mean_weights([weights])
    assert all(torch.equal(value, mean[name]) for name, value in weights.items())
    assert mean["1.num_batches_tracked"].dtype == torch.long


def test_a_soup_is_the_mean_of_its_weights() -> None:
    one, other = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 6.0])}
    assert mean_weights([one, other])["a"].tolist() == [2.0, 4.0]
    assert one["a"].tolist() == [1.0, 2.0]


def test_a_greedy_soup_takes_what_does_no_harm_in_the_order_of_rank() -> None:
    known = {(1,): 0.8, (1, 2): 0.7, (1, 3): 0.8, (1, 3, 4): 0.9}
    assert greedy_soup([1, 2, 3, 4], lambda steps: known[tuple(steps)], lower_is_better=False) == (
        [1, 3, 4], [0.8, 0.8, 0.9],
    )  # fmt: skip
    losses = {steps: 1 - value for steps, value in known.items()}
    assert greedy_soup([1, 2, 3, 4], lambda steps: losses[tuple(steps)], lower_is_better=True)[0] == [1, 3, 4]


@pytest.mark.parametrize("seed", range(5))
def test_a_greedy_soup_is_never_worse_than_the_best_alone(seed: int) -> None:
    random = np.random.default_rng(seed)
    known: dict[tuple[int, ...], float] = {}
    chosen, scores = greedy_soup(
        range(6), lambda some: known.setdefault(tuple(some), float(random.random())), lower_is_better=False
    )
    assert chosen[0] == 0
    assert scores == sorted(scores)
    assert scores[-1] == known[tuple(chosen)]


def test_an_average_that_is_taken_back_lies_in_memory_as_the_weights_do() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    average = WeightAverage(model, share=ema_share(0.9))
    average.take(0.5)
    again = WeightAverage(model, share=ema_share(0.9))
    again.load(average.tensors())
    with again.applied():
        assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
