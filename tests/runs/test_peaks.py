"""What a GPU can do at most, by the name that torch gives it."""

import pytest

from nlp_finetune.runs.peaks import PEAKS, peak_tflops


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "tf32", 156),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "fp16", 756.5),
        ("NVIDIA H100 NVL", "bf16", 835.5),
        ("NVIDIA H200", "bf16", 989.4),
        ("NVIDIA H200 NVL", "fp32", 60),
        ("NVIDIA L4", "bf16", 121),
        ("Tesla T4", "fp16", 65),
        ("Tesla V100-SXM2-32GB", "fp16", 125),
        ("Tesla V100-PCIE-16GB", "fp32", 14),
        ("Tesla V100S-PCIE-32GB", "fp16", 130),
        ("NVIDIA GeForce RTX 3090", "fp32", 35.6),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
    ],
)
def test_a_known_gpu_has_the_figure_of_its_data_sheet(name: str, precision: str, tflops: float) -> None:
    assert peak_tflops(name, precision) == tflops


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("NVIDIA L40S", "bf16"),
        ("NVIDIA GeForce RTX 3090 Ti", "bf16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "bf16"),
        ("AMD Instinct MI300X", "bf16"),
        ("Tesla T4", "bf16"),
        ("Tesla V100-SXM2-16GB", "tf32"),
    ],
)
def test_what_is_not_known_or_not_done_in_hardware_has_none(name: str, precision: str) -> None:
    assert peak_tflops(name, precision) is None


def test_numbers_of_half_the_size_are_at_least_as_fast() -> None:
    for _, figures in PEAKS:
        assert figures["fp32"] <= figures.get("tf32", figures["fp16"]) <= figures["fp16"]
