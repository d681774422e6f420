"""The image processor of a run: what a checkpoint says about its images, with the recipe's changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models import resnets
from nlp_finetune.models.checkpoint import Checkpoint, contents
from nlp_finetune.models.hub import local_folder

if TYPE_CHECKING:
    from nlp_finetune.data.image_inputs import Preprocessing

FILE = "preprocessor_config.json"
_USUAL = 224


class ImageProcessor:
    """Preprocessing as this package runs it, saved as transformers reads it."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `preprocessor_config.json`."""
        text = json.dumps(self.settings(), indent=2) + "\n"
        Path(folder, FILE).write_text(text, encoding="utf-8")

    def settings(self) -> dict[str, Any]:
        """Content of that file."""
        from nlp_finetune.data.image_inputs import to_settings

        return to_settings(self.preprocessing)


def load(checkpoint: Checkpoint, *, size: int | None, center: float | None) -> ImageProcessor:
    """The checkpoint's preprocessing; of a model from scratch, ImageNet's normalisation at 224 pixels.

    `size` is another side of the square that the model sees, `center` the share of the image's shorter side
    that evaluation keeps; None leaves both to the checkpoint (from scratch: 1, nothing is cut off).
    Raises `InputError` for a checkpoint that does not say how it wants its images.
    """
    from nlp_finetune.data.image_inputs import Preprocessing

    if checkpoint.kind == "scratch":
        known = Preprocessing(_USUAL, (_USUAL, _USUAL), 2, resnets.MEAN, resnets.STD)
    else:
        known = _read(local_folder(checkpoint, weights=False), given=checkpoint.given)
    if size is None and center is None:
        return ImageProcessor(known)
    side = size or known.size[0]
    if isinstance(known.resize, tuple) or known.crop is None:
        if center is not None:
            raise InputError("task.center: this checkpoint sees whole images, squeezed to a square; leave it out.")
        return ImageProcessor(replace(known, resize=(side, side), crop=None))
    kept = center if center is not None else known.crop[0] / known.resize
    # As torchvision and timm name such pairs: 224 of 256.
    return ImageProcessor(replace(known, resize=max(side, round(side / kept)), crop=(side, side)))


def load_saved(folder: Path) -> ImageProcessor:
    """The processor that a run saved; raises `InputError` if it is not there or damaged."""
    return ImageProcessor(_read(folder, given=str(folder)))


def _read(folder: Path, *, given: str) -> Preprocessing:
    from nlp_finetune.data.image_inputs import from_settings

    file = folder / FILE
    if not file.is_file():
        found = _of_timm(folder)
        if found is not None:
            return found
        raise InputError(f"{given}: no {FILE}, which says how it wants its images ({contents(folder)}).")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        return from_settings(settings, given=given)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{given}: its {FILE} can't be used ({error}).") from error


def _of_timm(folder: Path) -> Preprocessing | None:
    """Preprocessing of a folder in timm's format, whose config.json says it."""
    from nlp_finetune.data.image_inputs import Preprocessing

    try:
        raw: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    settings = raw.get("pretrained_cfg")
    if not isinstance(settings, Mapping):
        return None
    crop = int((settings.get("input_size") or [3, _USUAL, _USUAL])[-1])
    return Preprocessing(
        int(crop / float(settings.get("crop_pct") or 0.875)),
        (crop, crop),
        resnets.FILTER_NUMBERS.get(settings.get("interpolation"), 2),
        tuple(settings.get("mean") or resnets.MEAN),
        tuple(settings.get("std") or resnets.STD),
    )
