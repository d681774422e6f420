"""Regularisers: objectives around an objective, and what changes gradients or embeddings beside it.

An objective that runs the model twice gives the mean of both losses, so that the size of a step stays what it
was, and keeps the contract: a sum over the items of the micro batch / the items of the optimizer step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlp_finetune.learning.losses import IGNORED

Objective = Callable[[Any, Mapping[str, Any], Any], tuple[Tensor, Any]]
Divergence = Callable[[Tensor, Tensor, Tensor], Tensor]


def class_divergence(one: Tensor, other: Tensor, targets: Tensor) -> Tensor:
    """Sum over counted items of `(KL(p || q) + KL(q || p)) / 2`, with p and q the softmax of two sets of logits.

    Logits are `[..., classes]`, `targets` `[...]`; items whose target is `IGNORED` do not count.
    """
    counted = (targets != IGNORED).reshape(-1)
    p, q = (F.log_softmax(x.float().reshape(-1, x.shape[-1])[counted], -1) for x in (one, other))
    return _symmetric(p, q)


def binary_divergence(one: Tensor, other: Tensor, targets: Tensor) -> Tensor:
    """The same for classes that are on or off each, sigmoid in place of softmax; all are `[rows, classes]`."""
    p, q = (torch.stack([F.logsigmoid(x.float()), F.logsigmoid(-x.float())], -1) for x in (one, other))
    return _symmetric(p, q)


def _symmetric(p: Tensor, q: Tensor) -> Tensor:
    """Sum of `(KL(p || q) + KL(q || p)) / 2` of log-probabilities `[..., classes]`."""
    return 0.5 * ((p.exp() - q.exp()) * (p - q)).sum()


def r_drop(objective: Objective, *, weight: float, divergence: Divergence) -> Objective:
    """Two passes with other dropout masks: their mean loss and `weight` x their symmetric divergence.

    Liang et al. 2021, R-Drop: Regularized Dropout for Neural Networks. Without dropout it is the objective.
    """

    def twice(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[Tensor, Any]:
        first, outputs = objective(model, batch, num_items)
        second, again = objective(model, batch, num_items)
        apart = divergence(outputs.logits, again.logits, batch["labels"]) / num_items
        return (first + second) / 2 + weight * apart, outputs

    return twice


def perturbation(gradient: Tensor, *, size: float) -> Tensor:
    """Step of length `size` along the gradient of each row: `size g / |g|`, zero where there is no gradient.

    `gradient` is `[rows, tokens, width]`; the length is that of a row's tokens together.
    """
    flat = gradient.float().flatten(1)
    length = torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    step: Tensor = size * flat / length
    return step.view_as(gradient).to(gradient.dtype)


def adversarial(objective: Objective, *, size: float) -> Objective:
    """Mean of the loss and of the loss with every row's word embeddings moved by `size` to raise it.

    Miyato et al. 2017, Adversarial Training Methods for Semi-Supervised Text Classification. Weights are not
    touched: the step is added to what the embedding layer gives, for one pass.
    """

    def with_attack(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[Tensor, Any]:
        table = word_embeddings(model)
        given: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            given.append(output if output.requires_grad else output.detach().requires_grad_())
            return given[-1]

        with table.register_forward_hook(keep):
            loss, outputs = objective(model, batch, num_items)
        gradients = torch.autograd.grad(loss, given, retain_graph=True)
        steps = iter([perturbation(gradient, size=size) for gradient in gradients])

        def move(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            return output + next(steps)

        with table.register_forward_hook(move):
            attacked, _ = objective(model, batch, num_items)
        return (loss + attacked) / 2, outputs

    return with_attack


def word_embeddings(model: Any) -> nn.Module:
    """The embedding layer of a model, inside the wrappers of data parallelism and of adapters."""
    inner = getattr(model, "module", model)
    if hasattr(inner, "peft_config"):
        inner = inner.get_base_model()
    table: nn.Module = inner.get_input_embeddings()
    return table


def add_noise(model: Any, *, alpha: float) -> None:
    """Add uniform noise in [-a, a], a = `alpha` / sqrt(tokens x width), to word embeddings in training.

    Jain et al. 2023, NEFTune: Noisy Embeddings Improve Instruction Finetuning; transformers' own hook.
    """
    from transformers.integrations.neftune import neftune_post_forward_hook

    table: Any = word_embeddings(model)
    table.neftune_noise_alpha = alpha
    table.register_forward_hook(neftune_post_forward_hook)


class PullToStart(TrainerCallback):  # type: ignore[misc]
    """Adds `strength` x (weights - pretrained weights) to the gradients of the backbone, once a step, after clipping.

    That is the gradient of `strength / 2 |w - w0|^2` (Li et al. 2018, Explicit Inductive Bias for Transfer Learning
    with Convolutional Networks). Made before training or resuming changes the weights; new heads are left alone.
    """

    def __init__(self, model: Any, *, strength: float) -> None:
        self.strength = strength
        backbone = model.base_model if hasattr(model, "base_model") else model
        self.pulled = [p for p in backbone.parameters() if p.requires_grad]
        self.start = [p.detach().clone() for p in self.pulled]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        with torch.no_grad():
            for weight, start in zip(self.pulled, self.start, strict=True):
                if weight.grad is not None:
                    weight.grad.add_(weight - start.to(weight.device), alpha=self.strength)
