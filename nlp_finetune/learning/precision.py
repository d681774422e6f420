"""Which number format training computes in."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nlp_finetune.errors import InputError


def choose_precision(asked: str, device: torch.device, say: Callable[[str], None]) -> str:
    """`fp32`, `bf16` or `fp16`; `auto` takes bf16 on a GPU that supports it, else fp32.

    Master weights stay in fp32 in each case. Raises `InputError` for a format the device lacks.
    """
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported()
    if asked == "auto":
        if device.type == "cuda" and has_bf16:
            say("precision bf16: the GPU supports it (master weights fp32)")
            return "bf16"
        say(f"precision fp32: {_why_fp32(device)}")
        return "fp32"
    if asked == "fp16" and device.type == "cpu":
        raise InputError("train.precision=fp16 needs a GPU. Use bf16, fp32 or auto on a CPU.")
    if asked == "bf16" and not has_bf16:
        raise InputError("train.precision=bf16: this GPU does not support it. Use fp16, fp32 or auto.")
    slow = asked == "bf16" and device.type == "cpu" and not cpu_has_bf16()
    say(f"precision {asked}: asked for" + ("; this CPU has no instructions for it, so fp32 is faster" if slow else ""))
    return asked


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies matrices of bf16 numbers itself (AVX512-BF16 or AMX)."""
    features = torch.cpu.get_capabilities()
    return any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _why_fp32(device: torch.device) -> str:
    if device.type != "cpu":
        return "the device has no bf16"
    return "a CPU; train.precision=bf16 is faster on this one (docs/performance.md)" if cpu_has_bf16() else "a CPU"
