"""The sections `loss` and `optim`: what training minimises, and how weights move."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nlp_finetune.recipe.section import BelowOne, Conflict, NotNegative, Positive, Section


class Loss(Section):
    """What training minimises."""

    name: Literal["auto", "cross_entropy", "bce", "mse", "huber", "focal"] = Field(
        default="auto", description="The loss; `auto` takes the task's default for the labels it finds."
    )
    label_smoothing: BelowOne = Field(
        default=0.0, description="Probability moved from the true class to all classes; for cross_entropy."
    )
    gamma: NotNegative = Field(default=2.0, description="How strongly easy rows are played down; for focal.")

    def conflicts(self) -> list[Conflict]:
        return self._unused(self.name, {"label_smoothing": ("cross_entropy",), "gamma": ("focal",)})


class Optim(Section):
    """How weights move."""

    name: Literal["adamw", "adam", "rmsprop", "sgd"] = Field(default="adamw", description="The optimizer.")
    learning_rate: Positive = Field(default=2e-5, description="Peak learning rate, reached after the warm-up.")
    weight_decay: NotNegative = Field(default=0.01, description="Weight decay of matrices; biases and norms have none.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="Course of the learning rate after the warm-up: down to 0, or constant."
    )
    warmup: Annotated[int, Field(ge=0)] | BelowOne = Field(
        default=0.06,
        description="Length of the warm-up: below 1 a share of all optimizer steps, else a number of steps.",
    )
    max_grad_norm: NotNegative | None = Field(
        default=1.0, description="Gradients with a larger norm are scaled down to it; null or 0 is off."
    )
    momentum: BelowOne = Field(default=0.0, description="Momentum; for sgd and rmsprop.")
    beta1: BelowOne = Field(default=0.9, description="Decay of the mean of gradients; for adamw and adam.")
    beta2: BelowOne = Field(default=0.999, description="Decay of the mean of squared gradients; for adamw and adam.")
    epsilon: Positive = Field(
        default=1e-8, description="Added to the denominator for stability; for adamw, adam and rmsprop."
    )

    def conflicts(self) -> list[Conflict]:
        adam = ("adamw", "adam")
        momentum, epsilon = ("sgd", "rmsprop"), (*adam, "rmsprop")
        return self._unused(self.name, {"momentum": momentum, "beta1": adam, "beta2": adam, "epsilon": epsilon})
