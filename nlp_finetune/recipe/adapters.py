"""The section `lora`: small trained additions to frozen weights, by peft."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from nlp_finetune.recipe.section import BelowOne, Conflict, Count, Positive, Section, Text

_LOW_RANK = ("lora", "dora", "rslora", "pissa")
_NOT_MERGED = ("prefix", "prefix_tuning", "prompt", "prompt_tuning", "p_tuning", "multitask_prompt_tuning", "cpt")
"""Methods of peft that put something before the input, in place of changing weights."""
_NOT_OFFERED = ("adalora", "adaption_prompt", "boft", "bone", "fourierft", "hra", "loha", "lokr", "ln_tuning", "oft",
    "poly", "randlora", "vblora", "xlora")  # fmt: skip
"""Other methods of peft: each would need the tests that those on offer have."""


class Lora(Section):
    """Small adapters trained in place of all weights; null (the default) trains the whole model."""

    method: Literal["lora", "dora", "rslora", "pissa", "ia3", "vera"] = Field(
        default="lora", description="Kind of adapter, as peft calls it; each can be merged into the weights."
    )
    rank: Count = Field(default=8, description="Rank of what is added to a matrix; not for ia3.")
    alpha: Positive = Field(
        default=16.0,
        description="Scale of what is added, which is alpha / rank (rslora: alpha / square root of rank).",
    )
    dropout: BelowOne = Field(default=0.05, description="Dropout probability in front of an adapter; not for ia3.")
    targets: list[Text] | Literal["auto"] = Field(
        default="auto",
        description="Layers that get an adapter, by the ends of their names; `auto` takes every one in the blocks.",
    )
    rank_pattern: dict[str, Count] = Field(
        default_factory=dict,
        description="Other ranks for some layers: the end of a layer's name, or a regular expression, to a rank.",
    )

    @field_validator("method", mode="before")
    @classmethod
    def _refuse_by_name(cls, value: Any) -> Any:
        """Say why a method that peft has is not taken."""
        name = str(value).lower().replace("-", "_")
        if name in _NOT_MERGED:
            raise ValueError(
                f"{value} puts learned tokens before the input. They can't be worked into the weights, so model/ "
                "would not be a whole model for plain transformers; lora trains as few parameters and can"
            )
        if name in _NOT_OFFERED:
            raise ValueError(
                f"peft has {value}, this package does not offer it; lora and dora do the same kind of work"
            )
        return value

    def conflicts(self) -> list[Conflict]:
        users = {
            "rank": (*_LOW_RANK, "vera"),
            "alpha": _LOW_RANK,
            "dropout": (*_LOW_RANK, "vera"),
            "rank_pattern": _LOW_RANK,
        }
        return self._unused(self.method, users, choice="method")
