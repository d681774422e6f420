"""Rows of images that were read whole once: what can't be used is named, the rest is described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from nlp_finetune.data import ROW, image_columns
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

    from nlp_finetune.data.image_inputs import Preprocessing

_NAMED = 5
"""Unusable images that a message names; it counts the rest."""
_FOUND = ("digest", "width", "height", "kind", "thumbnail")


def read(
    data: Dataset, column: str, split: str, *, on_corrupt: Literal["error", "skip"], say: Callable[[str], None]
) -> tuple[Dataset, list[int]]:
    """Rows `image`, `row` and what `images.Examined` says of each, with their positions in `data`.

    Images that can't be read stop the run with one message that names them, or are left out with it.
    Raises `InputError` for them, and where none is left.
    """
    from datasets import Dataset, concatenate_datasets

    from nlp_finetune.data.images import examine_all, require_pillow

    require_pillow()
    images = image_columns.read(data, column, split)
    found = examine_all((row["image"] for row in images), count=len(images))
    bad = [at for at, one in enumerate(found) if one.problem is not None]
    if bad:
        named = "".join(f"\n  row {images[at][ROW]}: {_name(images[at])}{found[at].problem}" for at in bad[:_NAMED])
        named += f"\n  and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        what = f"{split}: {len(bad)} of {len(found)} images can't be used"
        if on_corrupt == "error" or len(bad) == len(found):
            raise InputError(f"{what}:{named}\nMend or remove them, or leave them out with task.on_corrupt=skip.")
        say(f"{what} and are left out:{named}")
    kept = [at for at, one in enumerate(found) if one.problem is None]
    columns = {name: [getattr(found[at], name) for at in kept] for name in _FOUND}
    images = images.select(kept) if bad else images
    return concatenate_datasets([images, Dataset.from_dict(columns)], axis=1), kept


def unusable(data: Dataset, column: str) -> dict[int, str]:
    """Positions of images that can't be read, and why."""
    from nlp_finetune.data.images import examine_all

    images = image_columns.read(data, column, "input")
    found = examine_all((row["image"] for row in images), count=len(images))
    return {at: f"{_name(images[at])}{one.problem}" for at, one in enumerate(found) if one.problem is not None}


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['image']['path']}: " if row["image"]["path"] else ""


def describe_sizes(rows: Dataset) -> str:
    """What the images of a split are like, in one line."""
    import numpy as np

    sides = np.minimum(rows["width"], rows["height"])
    kinds = Counter(rows["kind"]).most_common(3)
    least, most = sides.min(), sides.max()
    spread = f"{least}" if least == most else f"{least} to {most}, half of them up to {int(np.median(sides))}"
    return f"shorter side {spread} pixels; " + ", ".join(f"{count:,} {kind}" for kind, count in kinds)


def describe_transforms(how: Preprocessing) -> dict[str, str]:
    """What becomes of an image that `augment` does not change."""
    height, width = how.size
    exact = isinstance(how.resize, tuple)
    resized = f"{how.resize[1]} x {how.resize[0]}" if isinstance(how.resize, tuple) else f"{how.resize} (shorter side)"
    middle = "" if exact or how.crop is None else f", then the middle {width} x {height}"
    return {
        "size": f"resized to {resized}{middle}",
        "pixels": f"pixels / 255, less {list(how.mean)}, over {list(how.std)}",
    }
