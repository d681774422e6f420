"""What a check found: one line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `advice` says what to do where the state is not `ok`."""

    name: str
    state: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""
