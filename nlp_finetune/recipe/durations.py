"""Times in a recipe: `90s`, `30m`, `2h`, `1h30m`, `1.5d`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from nlp_finetune.recipe.section import Words

_PATTERN = r"^(\d+(\.\d+)?[smhd])+$"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Duration = Annotated[str, Field(pattern=_PATTERN), Words("a time like 90s, 30m, 2h or 1h30m")]


def is_duration(value: object) -> bool:
    """Whether a value is written like a time."""
    return isinstance(value, str) and re.fullmatch(_PATTERN, value) is not None


def seconds(duration: str) -> float:
    """Seconds of a time."""
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", duration))
