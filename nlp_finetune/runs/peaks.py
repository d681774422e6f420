"""What GPUs can compute at most: dense matrix products, by the makers' data sheets.

TFLOPS without sparsity (sheets of Ampere and later print twice that); 16-bit products have sums in fp32.

    A100        A100 Tensor Core GPU data sheet; the same for SXM and PCIe
    H100, H200  H100 and H200 Tensor Core GPU data sheets; PCIe and NVL cards are slower than SXM modules
    L4, T4      L4 and T4 Tensor Core GPU data sheets
    V100        V100 Tensor Core GPU data sheet (SXM2, PCIe, V100S)
    RTX 3090    NVIDIA Ampere GA102 GPU Architecture, table 2
    RTX 4090    NVIDIA Ada GPU Architecture, table 2
"""

from __future__ import annotations

_HOPPER = {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9}
_HOPPER_NVL = {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5, "fp32": 60.0}
PEAKS: tuple[tuple[tuple[str, ...], dict[str, float]], ...] = (
    (("H200", "NVL"), _HOPPER_NVL),
    (("H200",), _HOPPER),
    (("H100", "NVL"), _HOPPER_NVL),
    (("H100", "PCIe"), {"bf16": 756.5, "fp16": 756.5, "tf32": 378.0, "fp32": 51.0}),
    (("H100", "HBM3"), _HOPPER),
    (("H100", "SXM"), _HOPPER),
    (("A100",), {"bf16": 312.0, "fp16": 312.0, "tf32": 156.0, "fp32": 19.5}),
    (("V100S",), {"fp16": 130.0, "fp32": 16.4}),
    (("V100", "PCIE"), {"fp16": 112.0, "fp32": 14.0}),
    (("V100", "SXM2"), {"fp16": 125.0, "fp32": 15.7}),
    (("L4",), {"bf16": 121.0, "fp16": 121.0, "tf32": 60.0, "fp32": 30.3}),
    (("T4",), {"fp16": 65.0, "fp32": 8.1}),
    (("RTX", "3090"), {"bf16": 71.0, "fp16": 71.0, "tf32": 35.6, "fp32": 35.6}),
    (("RTX", "4090"), {"bf16": 165.2, "fp16": 165.2, "tf32": 82.6, "fp32": 82.6}),
)
"""TFLOPS by precision; the first line fits all of whose words are in the device's name as torch gives it."""
_OTHERS = frozenset({"TI", "D", "MIG", "LAPTOP"})
"""Words of names of devices that are not what their other words say (RTX 3090 Ti, a slice of an A100)."""


def peak_tflops(name: str, precision: str) -> float | None:
    """Dense TFLOPS of a GPU in `bf16`, `fp16`, `tf32` or `fp32`; None where not known, or not done in hardware."""
    words = name.upper().replace("-", " ").split()
    if _OTHERS & set(words):
        return None
    for wanted, figures in PEAKS:
        if all(word.upper() in words for word in wanted):
            return figures.get(precision)
    return None
