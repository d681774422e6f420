"""Images changed at random by torchvision's transforms (`torchvision.transforms.v2`), each way off at 0.

torchvision draws from torch's global generator. Here that is seeded from the row's own and put back, so that a row
is changed alike wherever it is drawn and nothing else draws other numbers for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of torchvision
from nlp_finetune.data.images import Unread
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from nlp_finetune.data.image_inputs import Preprocessing

_HUE = 0.25
"""Share of `color_jitter` that hue gets: colours turn into others long before light does."""
_SPARE = 2
"""Pixels a side that a JPEG which is not decoded whole keeps for each that the model sees."""


@dataclass(frozen=True)
class ImageWays:
    """How images are changed, in the order in which it is done; what each means stands in the recipe's section."""

    crop: Sequence[float] | None = None
    padded_crop: int = 0
    resize: Sequence[float] | None = None
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    rotation: float = 0.0
    trivial_augment: bool = False
    rand_augment: int = 0
    color_jitter: float = 0.0
    noise: float = 0.0
    erasing: float = 0.0


@dataclass(frozen=True)
class ImageChange:
    """Changes an image: `(image, generator) -> pixels` `[height, width, 3]`, bytes, of the size the model sees.

    With `probability`; else the image is as in evaluation. `steps` are transforms of images, `last` of tensors; with
    `crops` the first of them is a random crop.
    """

    preprocessing: Preprocessing
    crops: bool
    steps: Sequence[Any]
    last: Sequence[Any]
    probability: float

    def __call__(self, image: Image | Unread, random: np.random.Generator) -> np.ndarray:
        from torchvision.transforms.v2 import functional

        if random.random() >= self.probability:
            return np.asarray(self.preprocessing.evaluate(_whole(image)))
        with drawing_from(random):
            changed: Any = self._crop(image) if self.crops else self.preprocessing.evaluate(_whole(image))
            for step in self.steps[self.crops :]:
                changed = step(changed)
            if not self.last:
                return np.asarray(changed)
            pixels = functional.pil_to_tensor(changed)
            for step in self.last:
                pixels = step(pixels)
        found: np.ndarray = pixels.permute(1, 2, 0).numpy()
        return found

    def _crop(self, image: Image | Unread) -> Image:
        """The first step, a random crop, drawn before a JPEG is decoded: at what size depends on the crop."""
        import torch

        crop = self.steps[0]
        width, height = image.size
        box = crop.make_params([torch.empty(3, height, width, device="meta")])
        shrink = _shrink(box["width"], box["height"], size=crop.size) if isinstance(image, Unread) else 1
        if shrink == 1 or not isinstance(image, Unread) or not image.shrinks:
            cropped: Image = crop.transform(_whole(image), box)
            return cropped
        small = image.load(shrink=shrink)
        across, down = small.width / width, small.height / height
        right = min(small.width, (box["left"] + box["width"]) * across)
        bottom = min(small.height, (box["top"] + box["height"]) * down)
        part = (box["left"] * across, box["top"] * down, right, bottom)
        return small.resize(crop.size[::-1], self.preprocessing.filter, box=part)


def _whole(image: Image | Unread) -> Image:
    return image.load() if isinstance(image, Unread) else image


def _shrink(width: int, height: int, *, size: Sequence[int]) -> int:
    """By how much a JPEG may be smaller a side for a part of that width and height: 1, 2, 4 or 8.

    What is left has at least twice the pixels a side that the model sees (`size` is height and width): resizing that is
    near to resizing the whole, where less would show (docs/performance.md).
    """
    fits = min(width / (_SPARE * size[1]), height / (_SPARE * size[0]))
    return max(scale for scale in (1, 2, 4, 8) if scale <= max(1.0, fits))


def make(how: Preprocessing, ways: ImageWays, *, probability: float) -> ImageChange:
    """The function for images that become model inputs as `how` says. Raises `InputError` without torchvision."""
    try:
        from torchvision.transforms import InterpolationMode, v2
    except ImportError as error:
        raise InputError("augment: images need torchvision. Run: pip install 'nlp-finetune[image]'") from error
    bilinear = InterpolationMode.BILINEAR
    # What comes from outside of the image has the mean colour, which is 0 to the model.
    colour = [round(255 * value) for value in how.mean]
    jitter = ways.color_jitter
    steps: list[tuple[Any, Any]] = [
        (ways.crop, lambda: v2.RandomResizedCrop(how.size, scale=ways.crop, interpolation=_filter(how.resample))),
        (ways.padded_crop, lambda: v2.RandomCrop(how.size, padding=ways.padded_crop, fill=colour)),
        (ways.resize, lambda: v2.ScaleJitter(how.size, scale_range=ways.resize, interpolation=_filter(how.resample))),
        (ways.resize, lambda: v2.RandomCrop(how.size, pad_if_needed=True, fill=colour)),
        (ways.horizontal_flip, lambda: v2.RandomHorizontalFlip(ways.horizontal_flip)),
        (ways.vertical_flip, lambda: v2.RandomVerticalFlip(ways.vertical_flip)),
        (ways.rotation, lambda: v2.RandomRotation(ways.rotation, interpolation=bilinear, fill=colour)),
        (ways.trivial_augment, lambda: v2.TrivialAugmentWide(interpolation=bilinear, fill=colour)),
        (ways.rand_augment, lambda: v2.RandAugment(magnitude=ways.rand_augment, interpolation=bilinear, fill=colour)),
        (jitter, lambda: v2.ColorJitter(jitter, jitter, jitter, _HUE * jitter)),
    ]
    last: list[tuple[Any, Any]] = [
        (ways.noise, lambda: v2.GaussianNoise(sigma=ways.noise)),
        (ways.erasing, lambda: v2.RandomErasing(ways.erasing, value=colour)),
    ]
    return ImageChange(
        preprocessing=how,
        crops=ways.crop is not None,
        steps=[build() for is_on, build in steps if is_on],
        last=[build() for is_on, build in last if is_on],
        probability=probability,
    )


def _filter(resample: int) -> Any:
    """torchvision's name of a Pillow filter."""
    from torchvision.transforms import InterpolationMode

    names = {0: "NEAREST", 1: "LANCZOS", 2: "BILINEAR", 3: "BICUBIC", 4: "BOX", 5: "HAMMING"}
    return InterpolationMode[names[resample]]


@contextmanager
def drawing_from(random: np.random.Generator) -> Iterator[None]:
    """Let torch draw on the CPU from a seed of this generator, and put its own state back afterwards."""
    import torch

    before = torch.get_rng_state()
    torch.default_generator.manual_seed(int(random.integers(2**63)))
    try:
        yield
    finally:
        torch.set_rng_state(before)
