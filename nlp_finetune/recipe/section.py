"""The base of a recipe's sections, and the types of their keys.

A section is data without behaviour. Its `conflicts` are keys that contradict each other, among them
keys that another choice would silently ignore: no key is accepted and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]
Conflict = tuple[str, str]
"""A key of the section and what is wrong with it."""


@dataclass(frozen=True)
class Words:
    """Words for what a type takes, in messages and in the reference."""

    words: str


class Section(BaseModel):
    """Base of all sections: frozen, strict about types, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def conflicts(self) -> list[Conflict]:
        """Keys that contradict each other, all of them."""
        return []

    @model_validator(mode="after")
    def _refuse_conflicts(self) -> Section:
        if conflicts := self.conflicts():
            text = "; ".join(f"{key}: {problem}" for key, problem in conflicts)
            raise PydanticCustomError("conflict", "{text}", {"text": text, "conflicts": conflicts})
        return self

    def _unused(self, name: str, users: Mapping[str, tuple[str, ...]], *, choice: str = "name") -> list[Conflict]:
        """Keys set away from their default though the `choice` called `name` is none of those that use them."""
        section, fields = type(self).__name__.lower(), type(self).model_fields
        return [
            (key, f"{name} does not use it; it needs {section}.{choice}: {' or '.join(names)}")
            for key, names in users.items()
            if name not in names and getattr(self, key) != fields[key].get_default(call_default_factory=True)
        ]
