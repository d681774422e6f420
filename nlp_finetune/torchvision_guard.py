"""Make torchvision importable beside a CPU build of torch.

The Linux wheel of torchvision on PyPI is linked against CUDA. Beside a CPU build of torch its C++
operators do not load, `import torchvision` raises, and with it every transformers model class.
Declaring the two operator schemas is enough for models, transforms and data sets.

Import this module before the first import of transformers; it does nothing where torchvision is
absent or whole.
"""

from __future__ import annotations

import importlib.util

import torch

_OPERATOR_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_library: torch.library.Library | None = None


def declare_missing_operators() -> bool:
    """Declare torchvision's operators where they are really missing; return whether that was so."""
    global _library
    if importlib.util.find_spec("torchvision") is None:
        return False
    if torch.version.cuda is not None or torch.version.hip is not None:
        return False
    if _library is not None or hasattr(torch.ops.torchvision, "nms"):
        return _library is not None
    # The library must stay referenced: its schemas vanish with it.
    _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name, schema in _OPERATOR_SCHEMAS.items():
        _library.define(name + schema)  # type: ignore[no-untyped-call]
    return True


declare_missing_operators()
