"""What a process frees stays with it, where that is glibc's to decide and nobody else has."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is told")

FAULTS = """
import resource, sys
from nlp_finetune import allocator
if sys.argv[1] == "keep":
    assert allocator.keep_freed_memory() is None
import numpy
def touch():
    for _ in range(3):
        numpy.empty(48 * 2**20, numpy.uint8).fill(1)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
REASON = "from nlp_finetune import allocator; print(allocator.keep_freed_memory())"


def said(code: str, *arguments: str, **environment: str) -> str:
    others = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, cwd=ROOT, check=True, env={**others, **environment},
    )  # fmt: skip
    return done.stdout.strip()


@glibc_only
def test_memory_that_is_used_again_is_not_asked_for_again() -> None:
    pages = 3 * 48 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    # numpy asks for huge pages, which fault 512 at a time where the kernel has some.
    assert int(said(FAULTS, "leave")) > pages / 1024
    assert int(said(FAULTS, "keep")) < pages / 2048


@glibc_only
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"])
def test_what_the_user_told_malloc_holds(name: str) -> None:
    assert said(REASON, **{name: "131072"}) == f"{name} says how memory is kept"


@glibc_only
def test_tunables_of_malloc_hold_and_others_do_not_matter() -> None:
    assert said(REASON, GLIBC_TUNABLES="glibc.malloc.top_pad=131072") == "GLIBC_TUNABLES says how memory is kept"
    assert said(REASON, GLIBC_TUNABLES="glibc.rtld.nns=4") == "None"


@glibc_only
@pytest.mark.skipif(shutil.which("cc") is None, reason="builds a small library")
def test_another_allocator_that_is_preloaded_is_left_alone(tmp_path: Path) -> None:
    library, source = tmp_path / "libothermalloc.so", tmp_path / "other.c"
    source.write_text(
        "#include <stddef.h>\nextern void *__libc_malloc(size_t);\n"
        "void *malloc(size_t n) { return __libc_malloc(n); }\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    assert said(REASON, LD_PRELOAD=str(library)) == "memory comes from libothermalloc.so"
