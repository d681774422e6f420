"""The sections `loss` and `optim`: what training minimises, and how weights move."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nlp_finetune.recipe.section import BelowOne, Conflict, Count, NotNegative, OpenFraction, Positive, Section, Text

_CLASSES = ("auto", "cross_entropy", "focal", "bce")
_ADAM = ("adamw", "adam", "adamw_8bit")


class Loss(Section):
    """What training minimises."""

    name: Literal["auto", "cross_entropy", "bce", "mse", "huber", "focal"] = Field(
        default="auto", description="The loss; `auto` takes the task's default for the labels it finds."
    )
    label_smoothing: BelowOne = Field(
        default=0.0, description="Probability moved from the true class to all classes; for cross_entropy."
    )
    gamma: NotNegative = Field(default=2.0, description="How strongly easy rows are played down; for focal.")
    class_weights: Literal["balanced"] | dict[Text, NotNegative] | None = Field(
        default=None,
        description=(
            "How much an item of each class counts: `balanced` (rare classes more, 1 on average) or a weight by "
            "class name, 1 where none is given; with bce, weights of the positive rows."
        ),
    )

    imbalance: Literal["auto"] | None = Field(
        default=None,
        description="`auto` trains with the plain loss, with balanced class weights, with focal and with a balanced "
        "sampler, and keeps what is best on validation; null takes the loss as it is set.",
    )

    def conflicts(self) -> list[Conflict]:
        if self.imbalance is not None:
            given = {"name": "auto", "class_weights": None, "gamma": 2.0}
            return [
                (key, "loss.imbalance auto tries it by itself; leave one of them out")
                for key, default in given.items()
                if getattr(self, key) != default
            ]
        users = {"label_smoothing": ("cross_entropy",), "gamma": ("focal",), "class_weights": _CLASSES}
        return self._unused(self.name, users)


class Optim(Section):
    """How weights move."""

    name: Literal["adamw", "adam", "rmsprop", "sgd", "adafactor", "lion", "adamw_8bit"] = Field(
        default="adamw", description="The optimizer; adamw_8bit is that of bitsandbytes, on a GPU."
    )
    learning_rate: Positive = Field(default=2e-5, description="Peak learning rate, reached after the warm-up.")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="Factor of the learning rate of each block, and of the embeddings, over that of the layer above.",
    )
    head_multiplier: Positive = Field(default=1.0, description="Factor of the learning rate of the head.")
    rates: dict[Text, Positive] = Field(
        default_factory=dict,
        description="Further factors of the learning rate, by globs over parameter names: `{'*.bias': 0.5}`.",
    )
    reinit_top_layers: Count | None = Field(
        default=None,
        description="Draw so many blocks from the top, and the pooler, anew before training; null keeps all.",
    )
    weight_decay: NotNegative = Field(default=0.01, description="Weight decay of matrices; biases and norms have none.")
    schedule: Literal[
        "linear", "cosine", "constant", "polynomial", "inverse_sqrt", "one_cycle", "warmup_stable_decay", "plateau"
    ] = Field(
        default="linear",
        description="Course of the rate after the warm-up; all but constant, inverse_sqrt and plateau end at 0.",
    )
    warmup: Annotated[int, Field(ge=0)] | BelowOne = Field(
        default=0.06,
        description="Length of the warm-up: below 1 a share of all optimizer steps, else a number of steps.",
    )
    power: Positive = Field(default=2.0, description="Exponent of the fall; for polynomial.")
    decay: OpenFraction = Field(
        default=0.2, description="Share of all steps, at the end, in which the rate falls; for warmup_stable_decay."
    )
    plateau_patience: Count = Field(
        default=1, description="Evaluations in a row without a new best before the rate is cut; for plateau."
    )
    plateau_factor: OpenFraction = Field(default=0.5, description="What the rate is multiplied by then; for plateau.")
    max_grad_norm: NotNegative | None = Field(
        default=1.0, description="Gradients with a larger norm are scaled down to it; null or 0 is off."
    )
    clip_by_value: Positive | None = Field(
        default=None,
        description="Each number of the gradients is put between minus this and this, in place of `max_grad_norm`; "
        "null is off.",
    )
    momentum: BelowOne = Field(default=0.0, description="Momentum; for sgd and rmsprop.")
    nesterov: bool = Field(default=False, description="Whether momentum looks ahead (Nesterov); for sgd.")
    beta1: BelowOne = Field(default=0.9, description="Decay of the mean of gradients; for adamw, adam and lion.")
    beta2: BelowOne = Field(
        default=0.999,
        description="Decay of the mean of squared gradients (lion: of gradients); for adamw, adam and lion.",
    )
    epsilon: Positive = Field(
        default=1e-8, description="Added to the denominator for stability; for adamw, adam and rmsprop."
    )

    def conflicts(self) -> list[Conflict]:
        by_name = {
            "momentum": ("sgd", "rmsprop"),
            "nesterov": ("sgd",),
            "beta1": (*_ADAM, "lion"),
            "beta2": (*_ADAM, "lion"),
            "epsilon": (*_ADAM, "rmsprop"),
        }
        by_schedule = {
            "power": ("polynomial",),
            "decay": ("warmup_stable_decay",),
            "plateau_patience": ("plateau",),
            "plateau_factor": ("plateau",),
        }
        found = [*self._unused(self.name, by_name), *self._unused(self.schedule, by_schedule, choice="schedule")]
        if self.nesterov and self.momentum == 0 and self.name == "sgd":
            found.append(("nesterov", "needs optim.momentum above 0"))
        if self.clip_by_value is not None and self.max_grad_norm:
            found.append(("clip_by_value", "gradients are clipped by value or by norm: set optim.max_grad_norm=null"))
        return found
