"""torchvision's ResNets in the formats of transformers and timm: names, sizes, configurations.

The five plain ones are transformers' `ResNetForImageClassification` with renamed weights, and give the
same logits to the last digit. ResNeXt and Wide ResNet exist in timm's format alone, which keeps
torchvision's names. Nothing here imports torch when it is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Architecture:
    """A ResNet of torchvision: blocks of each stage, their kind, and what sets the wider kinds apart."""

    name: str
    depths: tuple[int, int, int, int]
    bottleneck: bool
    groups: int = 1
    width: int = 64

    @property
    def plain(self) -> bool:
        """Whether transformers' ResNet can hold it."""
        return self.groups == 1 and self.width == 64

    @property
    def features(self) -> int:
        """Width of what the classifier reads."""
        return 2048 if self.bottleneck else 512


ARCHITECTURES: Mapping[str, Architecture] = {
    a.name: a
    for a in (
        Architecture("resnet18", (2, 2, 2, 2), bottleneck=False),
        Architecture("resnet34", (3, 4, 6, 3), bottleneck=False),
        Architecture("resnet50", (3, 4, 6, 3), bottleneck=True),
        Architecture("resnet101", (3, 4, 23, 3), bottleneck=True),
        Architecture("resnet152", (3, 8, 36, 3), bottleneck=True),
        Architecture("resnext50_32x4d", (3, 4, 6, 3), bottleneck=True, groups=32, width=4),
        Architecture("resnext101_32x8d", (3, 4, 23, 3), bottleneck=True, groups=32, width=8),
        Architecture("resnext101_64x4d", (3, 4, 23, 3), bottleneck=True, groups=64, width=4),
        Architecture("wide_resnet50_2", (3, 4, 6, 3), bottleneck=True, width=128),
        Architecture("wide_resnet101_2", (3, 4, 23, 3), bottleneck=True, width=128),
    )
}
SMALL_STEM = "resnet_small_stem"
"""Model type of a plain ResNet whose stem is for small images (`models/resnet_small_stem.py`)."""
_SMALL = "_small_stem"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in [0, 1], by channel: what all of torchvision's weights expect."""
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of filters to timm's names."""
FILTER_NUMBERS: Mapping[Any, int] = {name: number for number, name in FILTERS.items()}
_RENAMES = (
    (r"conv1\.(.*)", r"resnet.embedder.embedder.convolution.\1"),
    (r"bn1\.(.*)", r"resnet.embedder.embedder.normalization.\1"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.(.*)", r"resnet.encoder.stages.{0}.layers.\2.layer.{2}.convolution.\4"),
    (r"layer(\d)\.(\d+)\.bn(\d)\.(.*)", r"resnet.encoder.stages.{0}.layers.\2.layer.{2}.normalization.\4"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.(.*)", r"resnet.encoder.stages.{0}.layers.\2.shortcut.convolution.\3"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.(.*)", r"resnet.encoder.stages.{0}.layers.\2.shortcut.normalization.\3"),
    (r"fc\.(.*)", r"classifier.1.\1"),
)
"""torchvision's names to transformers'; `{0}` is the first group less one, `{2}` the third."""


def find(name: str, *, given: str) -> Architecture:
    """The architecture of that name; raises `InputError` listing them."""
    if name not in ARCHITECTURES:
        raise InputError(f"{given}: torchvision has no ResNet of that name. There are {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def is_from_scratch(name: str) -> bool:
    """Whether `scratch:NAME` is a ResNet, perhaps with the stem for small images."""
    architecture = ARCHITECTURES.get(name.removesuffix(_SMALL))
    return architecture is not None and (architecture.plain or not name.endswith(_SMALL))


def scratch_configuration(name: str) -> dict[str, Any]:
    """`config.json` for such a name."""
    described = configuration(ARCHITECTURES[name.removesuffix(_SMALL)], None)
    return {**described, "model_type": SMALL_STEM, "architectures": None} if name.endswith(_SMALL) else described


def transformers_name(name: str) -> str | None:
    """transformers' name of a weight of torchvision's; None for one that no ResNet has."""
    for pattern, replacement in _RENAMES:
        match = re.fullmatch(pattern, name)
        if match:
            less_one = [str(int(group) - 1) if group.isdigit() else "" for group in match.groups()]
            return match.expand(replacement.format(*less_one))
    return None


def to_transformers(weights: Mapping[str, T]) -> dict[str, T]:
    """The same weights under transformers' names."""
    return {transformers_name(name) or name: value for name, value in weights.items()}


def to_torchvision(weights: Mapping[str, T], architecture: Architecture) -> dict[str, T]:
    """The same weights under torchvision's names."""
    back = {transformers_name(name) or name: name for name in expected(architecture, labels=1)}
    return {back.get(name, name): value for name, value in weights.items()}


def expected(architecture: Architecture, *, labels: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights, as torchvision has them, buffers of BatchNorm among them."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
    before = 64
    for stage, depth in enumerate(architecture.depths, 1):
        planes = 32 * 2**stage
        after = 4 * planes if architecture.bottleneck else planes
        inner = planes * architecture.width // 64 * architecture.groups
        for block in range(depth):
            at = f"layer{stage}.{block}"
            kernels = [(planes, before, 3), (planes, planes, 3)]
            if architecture.bottleneck:
                kernels = [(inner, before, 1), (inner, inner // architecture.groups, 3), (after, inner, 1)]
            for number, (rows, columns, side) in enumerate(kernels, 1):
                shapes[f"{at}.conv{number}.weight"] = (rows, columns, side, side)
                shapes |= _norm(f"{at}.bn{number}", rows)
            if block == 0 and (stage > 1 or before != after):
                shapes[f"{at}.downsample.0.weight"] = (after, before, 1, 1)
                shapes |= _norm(f"{at}.downsample.1", after)
            before = after
    return {**shapes, "fc.weight": (labels, before), "fc.bias": (labels,)}


def _norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    vectors = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}


def recognise(weights: Mapping[str, torch.Tensor], *, given: str) -> Architecture:
    """The architecture whose names and shapes (the classifier's rows apart) these weights have.

    Raises `InputError` that says what is nearest and where it differs.
    """
    found = {name: tuple(value.shape) for name, value in weights.items()}
    labels = found.get("fc.weight", (1000,))[0]
    best: tuple[int, str, str] | None = None
    for architecture in ARCHITECTURES.values():
        wanted = expected(architecture, labels=labels)
        # Old files lack the counter of batches, which nothing reads.
        lost = [n for n, s in wanted.items() if found.get(n) != s and not n.endswith("num_batches_tracked")]
        odd = sorted(found.keys() - wanted.keys())
        if not lost and not odd:
            return architecture
        example = f"{lost[0]} is {_shape(found.get(lost[0]))}, not {_shape(wanted[lost[0]])}" if lost else f"{odd[0]}?"
        if best is None or len(lost) + len(odd) < best[0]:
            best = (len(lost) + len(odd), architecture.name, example)
    assert best is not None
    raise InputError(
        f"{given}: not the weights of a torchvision ResNet. Nearest is {best[1]}, with {best[0]} differences "
        f"in names and shapes, for example: {best[2]}."
    )


def _shape(shape: Sequence[int] | None) -> str:
    return "x".join(map(str, shape)) or "a number" if shape is not None else "missing"


def configuration(architecture: Architecture, labels: Sequence[str] | None) -> dict[str, Any]:
    """`config.json` of transformers: its own ResNet where that can hold the architecture, else timm's wrapper."""
    if not architecture.plain:
        return timm_configuration(architecture, labels)
    names = {"id2label": {str(i): n for i, n in enumerate(labels)}} if labels is not None else {}
    return {
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "depths": list(architecture.depths),
        "hidden_sizes": [256, 512, 1024, 2048] if architecture.bottleneck else [64, 128, 256, 512],
        "layer_type": "bottleneck" if architecture.bottleneck else "basic",
        "embedding_size": 64,
        "downsample_in_bottleneck": False,
        **names,
        **({"label2id": {n: i for i, n in enumerate(labels)}} if labels is not None else {}),
    }


def timm_configuration(architecture: Architecture, labels: Sequence[str] | None) -> dict[str, Any]:
    """`config.json` that timm's `local-dir:` and transformers' wrapper for timm both read."""
    count = 1000 if labels is None else len(labels)
    return {
        "architecture": architecture.name,
        "num_classes": count,
        "num_features": architecture.features,
        "label_names": list(labels) if labels is not None else [f"LABEL_{i}" for i in range(count)],
        "model_type": "timm_wrapper",
        "architectures": ["TimmWrapperForImageClassification"],
        # timm's own loader fails on null here.
        "model_args": {},
        "pretrained_cfg": timm_preprocessing(256, 224),
    }


def timm_preprocessing(
    resize: int, crop: int, *, mean: Sequence[float] = MEAN, std: Sequence[float] = STD, resample: int = 2
) -> dict[str, Any]:
    """`pretrained_cfg` of timm for images resized to `resize` (shorter side) and cropped to `crop`."""
    return {
        "tag": "tv_in1k",
        "custom_load": False,
        "input_size": [3, crop, crop],
        "fixed_input_size": False,
        "interpolation": FILTERS[resample],
        # timm takes floor(crop / crop_pct): without the margin that is one too small for some sizes.
        "crop_pct": (crop - 1e-6) / resize,
        "crop_mode": "center",
        "mean": list(mean),
        "std": list(std),
        "pool_size": [-(-crop // 32)] * 2,
        "first_conv": "conv1",
        "classifier": "fc",
    }


def of_configuration(raw: Mapping[str, Any]) -> Architecture | None:
    """The architecture that a `config.json` (of transformers or timm) describes; None for any other model."""
    if isinstance(raw.get("architecture"), str):
        # timm calls torchvision's own ResNets by torchvision's names, perhaps with a tag.
        return ARCHITECTURES.get(raw["architecture"].partition(".")[0]) if not raw.get("model_args") else None
    if raw.get("model_type") != "resnet" or raw.get("downsample_in_first_stage") or raw.get("downsample_in_bottleneck"):
        return None
    for architecture in ARCHITECTURES.values():
        if architecture.plain and all(
            list(raw.get(key, default)) == value if isinstance(value, list) else raw.get(key, default) == value
            for key, value, default in _sizes(architecture)
        ):
            return architecture
    return None


def _sizes(architecture: Architecture) -> list[tuple[str, Any, Any]]:
    """Keys that tell architectures apart: key, value, and the value where config.json leaves it out."""
    described = configuration(architecture, None)
    usual = configuration(ARCHITECTURES["resnet50"], None)
    return [(k, described[k], usual[k]) for k in ("depths", "hidden_sizes", "layer_type", "embedding_size")] + [
        ("num_channels", 3, 3),
        ("hidden_act", "relu", "relu"),
    ]
