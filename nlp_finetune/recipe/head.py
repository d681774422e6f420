"""The section `head`: a head of one's own on an encoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nlp_finetune.recipe.section import Conflict, Count, Section


class Head(Section):
    """A head of one's own in place of the family's, for text classification."""

    layers: Annotated[int, Field(ge=0)] = Field(
        default=1, description="Hidden layers between what is pooled and the scores; 0 is one linear layer in all."
    )
    width: Count | None = Field(default=None, description="Width of the hidden layers; null is that of the encoder.")
    norm: Literal["none", "layer", "batch"] = Field(
        default="none", description="Norm in each hidden layer; `batch` couples the rows of a micro batch."
    )
    pooling: Literal["cls", "mean", "max", "attention"] = Field(
        default="cls",
        description="How vectors of tokens become one: the first token's, their mean or maximum, or a learned mean.",
    )

    def conflicts(self) -> list[Conflict]:
        if self.layers > 0:
            return []
        given = {"width": self.width is not None, "norm": self.norm != "none"}
        return [(key, "there is no hidden layer where head.layers is 0") for key, is_set in given.items() if is_set]
