"""Experiment trackers, by transformers' own integrations: the same callbacks for both engines.

What each reads from the environment (`WANDB_PROJECT`, `MLFLOW_TRACKING_URI`, `TENSORBOARD_LOGGING_DIR`, ...)
is transformers' to say; nothing of it stands in a recipe.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlp_finetune.errors import InputError

_LOG_FOLDER = "tensorboard"


def check_installed(names: Sequence[str]) -> None:
    """Raise `InputError` with the line that installs them where packages of trackers are missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"train.report_to: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed. "
            f"pip install {' '.join(missing)}"
        )


def tracker_callbacks(names: Sequence[str], folder: Path) -> list[Any]:
    """Callbacks of the trackers, for the main process; TensorBoard writes into the run folder."""
    if not names:
        return []
    from transformers.integrations import get_reporting_integration_callbacks

    callbacks = [kind() for kind in get_reporting_integration_callbacks(list(names))]
    for name, callback in zip(names, callbacks, strict=True):
        if name == "tensorboard" and callback.logging_dir is None:
            callback.logging_dir = str(folder / _LOG_FOLDER)
    return callbacks
