"""Memory that a step frees stays with the process: asking the kernel for it again costs more than using it.

glibc's malloc gives big blocks back as soon as they are freed, and the kernel fills each page with zeros when it is
touched next: thousands of page faults in a step of a small model. Told to keep them, it hands the same pages out again.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2
"""Names of `mallopt` (malloc.h)."""
_LARGEST = 2**31 - 1
"""What `mallopt` takes at most: an int."""
_TOP_BYTES = 64 * 2**20
"""By how much the heap grows at a time."""
_OWN_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")
"""Environment variables with which users of glibc decide on the same themselves."""


def keep_freed_memory() -> str | None:
    """Let this process keep the memory that it frees; gives why not, or None if it does from now on.

    Only glibc's malloc is told; another one that was preloaded (tcmalloc, jemalloc) keeps memory by itself.
    """
    own = next((name for name in _OWN_SETTINGS if name in os.environ), None)
    if own is None and "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        own = "GLIBC_TUNABLES"
    if own is not None:
        return f"{own} says how memory is kept"
    library = _library_of_malloc()
    if library is None or not Path(library).name.startswith("libc.so"):
        return f"memory comes from {'another allocator' if library is None else Path(library).name}"
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _TOP_BYTES))
    told = [mallopt(name, value) == 1 for name, value in settings]
    return None if all(told) else "glibc refuses the settings"


def give_back() -> None:
    """Return to the system what is free, wherever it lies (glibc's `malloc_trim`)."""
    ctypes.CDLL(None).malloc_trim(0)


def resident() -> int:
    """Bytes of this process that are in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class _Symbol(ctypes.Structure):
    """Dl_info of dlfcn.h."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _library_of_malloc() -> str | None:
    """The file whose `malloc` this process calls; None where that can't be told, or without glibc."""
    try:
        program = ctypes.CDLL(None)
        program.gnu_get_libc_version  # noqa: B018  other C libraries have no such function
        found = _Symbol()
        if not program.dladdr(ctypes.cast(program.malloc, ctypes.c_void_p), ctypes.byref(found)) or not found.file:
            return None
        return os.fsdecode(found.file)
    except (AttributeError, OSError, TypeError):
        return None
