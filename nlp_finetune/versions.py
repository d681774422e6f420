"""What produced a result: this package's code, the libraries, the machine."""

from __future__ import annotations

import hashlib
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import nlp_finetune

_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "numpy")


def code() -> dict[str, str]:
    """Version of each library, and of this package with a digest of its source."""
    source = hashlib.sha256()
    root = Path(__file__).parent
    for file in sorted(root.rglob("*.py")):
        source.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    own = f"{nlp_finetune.__version__} (source {source.hexdigest()[:8]})"
    return {"nlp_finetune": own, **{name: metadata.version(name) for name in _LIBRARIES}}


def environment() -> dict[str, Any]:
    """What produced a result: versions, hardware, command, and git commit where there is one."""
    import platform
    import subprocess

    import torch

    packages = (
        "torch",
        "transformers",
        "datasets",
        "accelerate",
        "peft",
        "tokenizers",
        "huggingface-hub",
        "safetensors",
        "numpy",
        "scikit-learn",
    )
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = None
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "git_commit": commit,
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
    }


def _processor() -> str:
    """Name of the CPU as its maker calls it (Linux), or its architecture."""
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            return next(line.partition(":")[2].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
