"""Averages of weights: what is validated, kept as best and saved, while training goes on with its own weights.

A share says how much the newest weights count in the average from now on; both kinds of average are one rule,

    average <- average + share x (weights - average)

`ema` keeps a share of `1 - decay` in every step (Polyak and Juditsky 1992, Acceleration of Stochastic Approximation
by Averaging), `swa` one of 1 / n for the n-th weights it takes, which is their mean (Izmailov et al. 2018, Averaging
Weights Leads to Wider Optima and Better Generalization).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.data.batching import BatchPlan
from nlp_finetune.errors import NlpFinetuneError

T = TypeVar("T")
Share = Callable[[int, int], float | None]
"""`(optimizer step, weights taken so far) -> share of these weights in the average`; None leaves them out."""


def ema_share(decay: float) -> Share:
    """Shares of a moving average; in step t at least 1 - (1 + t) / (10 + t), so that it forgets where it began.

    That is how TensorFlow's ExponentialMovingAverage uses `num_updates`: a decay of 0.999 holds from step 9,000 on.
    """
    return lambda step, taken: 1.0 - min(decay, (1 + step) / (10 + step))


def swa_share(plan: BatchPlan, *, start: float, every: int | str) -> Share:
    """Shares of the mean of the weights at each epoch's end, or every so many steps, after a share `start` of all."""

    def share(step: int, taken: int) -> float | None:
        due = plan.ends_epoch(step) if every == "epoch" else step % int(every) == 0
        # The last weights count wherever the run ends.
        due = due or step == plan.steps
        return 1.0 / (taken + 1) if due and step > start * plan.steps else None

    return share


class WeightAverage(TrainerCallback):  # type: ignore[misc]
    """The average of what trains in a model, with the statistics of its BatchNorm layers.

    Made after freezing and before training; frozen parameters are left out. Costs one copy of what trains.
    Statistics of BatchNorm are averaged by the same shares, as torch's `AveragedModel(use_buffers=True)` does it,
    and not measured anew on the training rows.
    """

    def __init__(self, model: nn.Module, *, share: Share) -> None:
        self.share = share
        self.taken = 0
        self.named: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.named |= statistics(model)
        self.values: dict[str, Tensor] = {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        share = self.share(state.global_step, self.taken)
        if share is not None:
            self.take(share)

    @torch.no_grad()
    def take(self, share: float) -> None:
        """Let the weights as they are now count by this share; the first ones are the average."""
        if self.taken == 0:
            self.values = {name: weight.detach().clone() for name, weight in self.named.items()}
        else:
            self._move()
            torch._foreach_lerp_(list(self.values.values()), [w.detach() for w in self.named.values()], share)
        self.taken += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model, and take it out again; nothing happens before the first was taken."""
        self._move()
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, value in self.values.items():
            weight = self.named[name]
            weight.data, self.values[name] = value, weight.data

    def _move(self) -> None:
        """To where the weights are by now."""
        for name, value in self.values.items():
            self.values[name] = value.to(self.named[name].device)

    def tensors(self) -> dict[str, Tensor]:
        """The average, by names in the model; for a checkpoint."""
        return {name: value.detach().cpu().contiguous() for name, value in self.values.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave; raises `NlpFinetuneError` where it is another model's."""
        if tensors and tensors.keys() != self.named.keys():
            odd = sorted(tensors.keys() ^ self.named.keys())
            raise NlpFinetuneError(f"the checkpoint's average is not of these weights: {', '.join(odd[:3])}")
        # In the layout of the weights, whose place it takes in evaluations.
        self.values = {n: torch.empty_like(w).copy_(tensors[n]) for n, w in self.named.items() if n in tensors}

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.taken = saved["taken"]


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """Running means and variances of BatchNorm layers, by their names."""
    return {
        f"{name}.{kind}": buffer
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        for kind, buffer in module.named_buffers(recurse=False)
        if buffer.is_floating_point()
    }


def mean_weights(models: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The plain mean of the weights of models of one architecture; what is no real number is the first one's."""
    first, *others = models
    found = {name: value.clone() for name, value in first.items()}
    for name, total in found.items():
        if total.is_floating_point():
            for other in others:
                total += other[name]
            total /= len(models)
    return found


def greedy_soup(
    ranked: Sequence[T], score: Callable[[Sequence[T]], float], *, lower_is_better: bool
) -> tuple[list[T], list[float]]:
    """Which of some models, the best first, to average, and the score after each that was taken.

    A model is taken where the average with it is no worse than without it (Wortsman et al. 2022, Model soups:
    averaging weights of multiple fine-tuned models improves accuracy without increasing inference time, recipe 1).
    `score` judges the average of several.
    """
    chosen, scores = [ranked[0]], [score(ranked[:1])]
    for candidate in ranked[1:]:
        value = score([*chosen, candidate])
        if value <= scores[-1] if lower_is_better else value >= scores[-1]:
            chosen.append(candidate)
            scores.append(value)
    return chosen, scores
