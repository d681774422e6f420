"""From an image to model inputs: as the weights were evaluated, or changed at random for training.

The arithmetic is torchvision's (`transforms.Resize`, `CenterCrop`, `Normalize` on PIL images), to the last
digit; a test holds that. torchvision itself is needed for changes alone (`augment.images`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nlp_finetune.data import images
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes model inputs when it is evaluated.

    `resize` is the new shorter side, or height and width; `crop` the side (or height and width) of the part
    taken from the middle, None for all of it; `resample` Pillow's number of a filter (2 is bilinear).
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int] | None
    resample: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the model sees."""
        if self.crop is not None:
            return self.crop
        return self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)

    def evaluate(self, image: Image) -> Image:
        """Resize and cut out the middle."""
        image = image.resize(self._new_size(*image.size), self.filter)
        return image if self.crop is None else _center(image, *self.crop)

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the model takes `[rows, 3, height, width]`, fp32, of bytes or of other numbers in [0, 255].

        torchvision's `ToTensor` and `Normalize`, on the device of the pixels and once for a batch.
        """
        import torch

        found = pixels.permute(0, 2, 3, 1).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        # Whole lines: a loop over the three channels of each pixel is slow.
        width = found.shape[2]
        mean, std = (_repeated(values, width, pixels.device) for values in (self.mean, self.std))
        found.view(-1, 3 * width).div_(255).sub_(mean).div_(std)
        return found.permute(0, 3, 1, 2)

    @property
    def filter(self) -> Any:
        """Pillow's filter."""
        from PIL import Image

        return Image.Resampling(self.resample)

    def _new_size(self, width: int, height: int) -> tuple[int, int]:
        """New width and height."""
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        short, long = min(width, height), max(width, height)
        longer = int(self.resize * long / short)
        return (self.resize, longer) if width <= height else (longer, self.resize)


def _center(image: Image, height: int, width: int) -> Image:
    if image.width < width or image.height < height:
        left, top = max(0, (width - image.width) // 2), max(0, (height - image.height) // 2)
        from PIL import ImageOps

        right = max(0, (width - image.width + 1) // 2)
        image = ImageOps.expand(image, (left, top, right, max(0, (height - image.height + 1) // 2)))
    top, left = round((image.height - height) / 2.0), round((image.width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class ImageInputs:
    """Transform of a row: reads its image and gives `pixels` `[height, width, 3]`, bytes, and its `labels`.

    `change` is what happens to training images in place of what happens to all others.
    """

    preprocessing: Preprocessing
    change: Callable[[images.Unread, np.random.Generator], np.ndarray] | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether an image looks the same in every epoch."""
        return self.change is None

    def unseen(self, row: Mapping[str, Any], random: np.random.Generator) -> dict[str, Any]:
        """The same row with a pixel in place of its image, which is not read: for a model that looks at none."""
        return {"pixels": np.zeros((1, 1, 3), np.uint8), **({"labels": row["labels"]} if "labels" in row else {})}

    def __call__(self, row: Mapping[str, Any], random: np.random.Generator) -> dict[str, Any]:
        image = images.Unread(row["image"])
        pixels = self.change(image, random) if self.change else np.asarray(self.preprocessing.evaluate(image.load()))
        return {"pixels": pixels, **({"labels": row["labels"]} if "labels" in row else {})}


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Rows as one batch: `pixel_values` `[rows, 3, height, width]`, bytes as they were decoded, and `labels` `[rows]`.

    Bytes are a quarter of what goes from the workers to the model, which makes numbers of them
    (`Preprocessing.normalised`). The channels of a pixel stay side by side (channels last).
    """
    import torch

    batch = {"pixel_values": torch.from_numpy(np.stack([row["pixels"] for row in rows])).permute(0, 3, 1, 2)}
    if "labels" in rows[0]:
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
    return batch


@lru_cache(maxsize=8)
def _repeated(values: tuple[float, ...], times: int, device: torch.device) -> torch.Tensor:
    """The values over and over `[values x times]`; kept, because putting them on a GPU would wait for it."""
    import torch

    return torch.tensor(values, device=device).repeat(times)


def from_settings(settings: Mapping[str, Any], *, given: str) -> Preprocessing:
    """What a `preprocessor_config.json` of transformers says.

    Raises `InputError` for one that this package can't follow exactly.
    """
    size = settings.get("size") or {}
    size = {"shortest_edge": size} if isinstance(size, int) else size
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    resample = int(settings.get("resample", 2))
    if "crop_pct" in settings and "shortest_edge" in size:
        # ConvNext's way: below 384 the shorter side is size / crop_pct and the middle is taken.
        side = int(size["shortest_edge"])
        share = settings["crop_pct"] if settings["crop_pct"] is not None else 0.875
        size, crop = (
            ({"shortest_edge": int(side / share)}, {"height": side, "width": side})
            if side < 384
            else ({"height": side, "width": side}, None)
        )
    if "shortest_edge" in size and crop is not None:
        resize: int | tuple[int, int] = int(size["shortest_edge"])
    elif {"height", "width"} <= size.keys():
        resize = (int(size["height"]), int(size["width"]))
    else:
        raise InputError(f"{given}: its preprocessor_config.json gives no size that fits a batch ({size}).")
    if settings.get("do_rescale", True) is False or abs(settings.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise InputError(f"{given}: its preprocessor_config.json does not scale pixels by 1/255: not supported.")
    normal = settings.get("do_normalize", True)
    mean = tuple(float(v) for v in settings["image_mean"]) if normal else (0.0, 0.0, 0.0)
    std = tuple(float(v) for v in settings["image_std"]) if normal else (1.0, 1.0, 1.0)
    where = None if crop is None else (int(crop["height"]), int(crop["width"]))
    return Preprocessing(resize, where, resample, mean, std)  # type: ignore[arg-type]


def to_settings(preprocessing: Preprocessing) -> dict[str, Any]:
    """The same as a `preprocessor_config.json` that transformers follows to the pixel."""
    resize, crop = preprocessing.resize, preprocessing.crop
    size = {"height": resize[0], "width": resize[1]} if isinstance(resize, tuple) else {"shortest_edge": resize}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": size,
        "resample": preprocessing.resample,
        "do_center_crop": crop is not None,
        **({"crop_size": {"height": crop[0], "width": crop[1]}} if crop is not None else {}),
        "do_convert_rgb": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
