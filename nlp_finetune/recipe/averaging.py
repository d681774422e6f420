"""The section `average`: weights of several moments of training as one model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nlp_finetune.recipe.section import BelowOne, Conflict, Count, Section


class Average(Section):
    """Whether what is validated and saved is an average of weights, and of which."""

    name: Literal["ema", "swa", "soup"] | None = Field(
        default=None,
        description="`ema`: a moving average over all steps; `swa`: the mean of weights from `start` on; `soup`: the "
        "mean of the best checkpoints that do better together; null is none.",
    )
    decay: BelowOne = Field(
        default=0.999,
        description="Share of the former average that each step keeps, less in early steps; for ema. 0 is the model.",
    )
    start: BelowOne = Field(default=0.5, description="Share of the steps after which weights are averaged; for swa.")
    every: Count | Literal["epoch"] = Field(
        default="epoch", description="How often weights join the mean: each epoch, or every so many steps; for swa."
    )

    keep: Annotated[int, Field(ge=2)] = Field(
        default=5, description="Number of best evaluations whose weights are kept; for soup."
    )

    def conflicts(self) -> list[Conflict]:
        return self._unused(
            self.name or "null", {"decay": ("ema",), "start": ("swa",), "every": ("swa",), "keep": ("soup",)}
        )
