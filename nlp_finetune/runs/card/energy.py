"""What a training run may have used in energy: an estimate from power ratings, never a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CPU_CORE_W = 8.0
"""Power of one busy core: a desktop processor's 65 W on eight cores; server processors have 4 to 8 W a core."""
GPU_W = {
    "H200": 700.0, "H100": 700.0, "A100": 400.0, "V100": 300.0, "L40": 300.0, "A10": 150.0, "T4": 70.0, "L4": 72.0,
    "RTX 4090": 450.0, "RTX 3090": 350.0, "RTX A6000": 300.0,
}  # fmt: skip
"""Rated board power by a part of the device's name, from the makers' data sheets; the first that fits is taken."""
UNKNOWN_GPU_W = 300.0


@dataclass(frozen=True)
class Energy:
    """Watt hours, and the sentence that says what was assumed."""

    watt_hours: float
    assumption: str


def estimate(seconds: float, *, devices: Sequence[str], threads: int, processes: int) -> Energy:
    """Energy of `seconds` of training at full rated power of the GPUs, or of the CPU cores in use."""
    if devices:
        each = [next((watts for name, watts in GPU_W.items() if name in device), UNKNOWN_GPU_W) for device in devices]
        used = each[: max(1, processes)]
        power, what = sum(used), f"{len(used)} GPU{'s' * (len(used) > 1)} at {used[0]:.0f} W, their rated power"
    else:
        cores = threads * processes
        power, what = cores * CPU_CORE_W, f"{cores} CPU core{'s' * (cores > 1)} at {CPU_CORE_W:.0f} W each"
    return Energy(
        power * seconds / 3600, f"{what}, for {seconds:,.0f} s of training steps; the rest of the machine apart"
    )
