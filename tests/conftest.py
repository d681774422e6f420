"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest

# Nothing here may reach for a Hub: what a test needs is in the package, in a dependency, or made by it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ACCELERATE_USE_CPU", "true")
# Test files run side by side, one a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def project() -> Path:
    """Root of the checkout."""
    return PROJECT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets beside the project; they are not redistributed, so tests skip without them."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data sets are not here: {folder}")
    return folder
