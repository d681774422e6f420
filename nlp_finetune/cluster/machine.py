"""Is this machine fit to train? Versions, devices, memory, disk, limits, and whether the Hub answers."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import tempfile
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from nlp_finetune.cluster.finding import Finding

_GIB = 2**30
_LOW_DISK, _LOW_SHARED_MEMORY = 10 * _GIB, 1 * _GIB
"""Below these a warning: a checkpoint of a base-sized model takes 1.3 GB, and workers pass batches in memory."""
_FEW_FILES = 4096
"""Workers, sockets and memory-mapped data take file descriptors; NCCL takes many per peer."""
_HUB_TIMEOUT_S = 5.0
_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "tokenizers", "huggingface-hub", "numpy")


def check_machine(output_dir: Path) -> list[Finding]:
    """All checks of this machine, none of which changes anything; takes a few seconds."""
    return [
        *_versions(),
        _devices(),
        _cores(),
        _memory(),
        _disk("disk of runs", output_dir),
        _disk("disk of caches", _cache()),
        _disk("disk of temporary files", Path(tempfile.gettempdir())),
        _shared_memory(),
        *_limits(),
        _hub(),
    ]


def _versions() -> list[Finding]:
    from packaging.requirements import Requirement

    installed = {name: metadata.version(name) for name in _PACKAGES}
    line = ", ".join(f"{name} {version}" for name, version in installed.items())
    try:
        required = [Requirement(text) for text in metadata.requires("nlp-finetune") or []]
    except metadata.PackageNotFoundError:
        return [Finding("versions", "ok", line)]
    wrong = []
    for need in required:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{need.name} is missing")
            continue
        if not need.specifier.contains(version, prereleases=True):
            wrong.append(f"{need.name} {version} is not {need.specifier}")
    if wrong:
        return [Finding("versions", "failed", "; ".join(wrong), "pip install -c constraints.txt -e .")]
    return [Finding("versions", "ok", line)]


def _devices() -> Finding:
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        shown = [
            f"{torch.cuda.get_device_name(i)} ({torch.cuda.get_device_properties(i).total_memory / _GIB:.0f} GiB)"
            for i in range(count)
        ]
        return Finding("devices", "ok", f"{count} x " + ", ".join(dict.fromkeys(shown)))
    if Path("/dev/nvidiactl").exists():
        build = "a CPU build" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
        advice = "install the torch build for this driver (nvidia-smi shows its CUDA version)"
        return Finding("devices", "failed", f"there is an NVIDIA driver, but torch ({build}) sees no GPU", advice)
    if torch.accelerator.is_available():
        return Finding("devices", "ok", str(torch.accelerator.current_accelerator()))
    return Finding("devices", "ok", "no GPU: training runs on the CPU")


def _cores() -> Finding:
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    found = f"{usable} of {total} cores may be used" if usable < total else f"{total} cores"
    return Finding("cores", "ok", found)


def _memory() -> Finding:
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return Finding("memory", "ok", "not told by this system")
    total, free = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit = _container_limit()
    if limit is not None and limit < total:
        return Finding("memory", "ok", f"{limit / _GIB:.1f} GiB by the container's limit, of {total / _GIB:.1f} GiB")
    return Finding("memory", "ok", f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free")


def _container_limit() -> int | None:
    """Memory limit of this control group in bytes (cgroup 2), where it has one."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return None
    return None if text == "max" else int(text)


def _cache() -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME)


def _disk(name: str, folder: Path) -> Finding:
    nearest = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(nearest).free
    found = f"{free / _GIB:.1f} GiB free at {nearest}"
    if not os.access(nearest, os.W_OK):
        return Finding(name, "failed", f"{nearest} cannot be written", "choose another folder")
    if free < _LOW_DISK:
        return Finding(name, "warning", found, "free some space, or choose another disk (output_dir, HF_HOME, TMPDIR)")
    return Finding(name, "ok", found)


def _shared_memory() -> Finding:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Finding("shared memory", "ok", "no /dev/shm on this system")
    free = shutil.disk_usage(folder).free
    found = f"{free / _GIB:.2f} GiB free in /dev/shm"
    if free < _LOW_SHARED_MEMORY:
        advice = "workers die with a bus error when it is full: docker run --shm-size=8g, or train.workers=0"
        return Finding("shared memory", "warning", found, advice)
    return Finding("shared memory", "ok", found)


def _limits() -> list[Finding]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if files == resource.RLIM_INFINITY else str(files)
    few = files != resource.RLIM_INFINITY and files < _FEW_FILES
    findings = [
        Finding("open files", "warning" if few else "ok", shown, f"ulimit -n {_FEW_FILES} or more" if few else "")
    ]
    if Path("/dev/infiniband").exists():
        locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        limited = locked != resource.RLIM_INFINITY
        advice = "InfiniBand needs ulimit -l unlimited (under Slurm: PropagateResourceLimitsExcept=MEMLOCK)"
        found = f"{locked} bytes" if limited else "unlimited"
        findings.append(Finding("locked memory", "warning" if limited else "ok", found, advice if limited else ""))
    return findings


def _hub() -> Finding:
    """Does the Hub answer? Being offline is a way to work and not a failure."""
    from huggingface_hub import constants, get_token

    token = "a token is set" if get_token() else "no token (enough for public models and data)"
    if constants.HF_HUB_OFFLINE:
        return Finding("Hub", "ok", f"offline by HF_HUB_OFFLINE: only what is cached or local; {token}")
    where = urlsplit(constants.ENDPOINT)
    address = (where.hostname or "", where.port or (443 if where.scheme == "https" else 80))
    try:
        socket.create_connection(address, timeout=_HUB_TIMEOUT_S).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        advice = "fetch models and data on another machine, and set HF_HUB_OFFLINE=1 to lose no time asking"
        return Finding("Hub", "warning", f"{where.hostname} cannot be reached ({reason})", advice)
    return Finding("Hub", "ok", f"{where.hostname} answers; {token}")
