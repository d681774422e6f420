"""Image files as they come: read, checked, brought into upright RGB.

An image is a mapping with `bytes` (the file's content) or `path`, as in `datasets.Image`. Whatever can be
wrong with a file is found here, before training: Pillow reads a truncated file up to its last byte.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

SUFFIXES = ("jpg", "jpeg", "png", "bmp", "gif", "tif", "tiff", "webp", "ppm", "pgm")
"""File names that mean an image, in lower case."""
THUMBNAIL = 16
"""Side in pixels of the thumbnails that simple rivals learn from."""
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""EXIF orientations in which width and height change places."""
_BARS_FROM = 2_000
_AT_ONCE = 256


@dataclass(frozen=True)
class Examined:
    """What was found in an image file; `problem` says why it can't be used, None if it can.

    `digest` is the SHA-256 of the file; `thumbnail` holds 16 x 16 x 3 bytes; width and height are upright.
    """

    problem: str | None
    digest: str = ""
    width: int = 0
    height: int = 0
    kind: str = ""
    thumbnail: bytes = b""


def is_image_name(name: str) -> bool:
    """Whether a file is called like an image."""
    return Path(name.lower()).suffix[1:] in SUFFIXES


def require_pillow() -> None:
    """Raise `InputError` where Pillow, which reads images, is not installed."""
    if importlib.util.find_spec("PIL") is None:
        raise InputError("images need Pillow. Run: pip install 'nlp-finetune[image]'")


class Unread:
    """An image file of which so far only the header was read; `size` is its upright width and height.

    It is decoded once, when its pixels are asked for. Raises `InputError` where it can't be read.
    """

    def __init__(self, image: Mapping[str, Any]) -> None:
        self.image = image
        with self._named_faults():
            self._opened = _open(_content(image))
            self.size = _upright_size(self._opened)

    def load(self, *, shrink: int = 1) -> Image:
        """Pixels, upright, in RGB; of a JPEG fewer by the factor `shrink` (2, 4 or 8) a side.

        Turned as its EXIF orientation says; what is transparent lies on white; 16-bit greys keep their upper
        eight bits; of an animation the first frame is taken.
        """
        with self._named_faults(), self._opened as opened:
            if shrink > 1:
                opened.draft(None, (opened.width // shrink, opened.height // shrink))
            return _pixels(opened)

    @property
    def shrinks(self) -> bool:
        """Whether it can be decoded at a smaller size for less: a JPEG, whose blocks are 8 x 8 pixels."""
        return self._opened.format == "JPEG"

    @contextmanager
    def _named_faults(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Pillow's readers raise anything for a file that is not what it says
            raise InputError(f"{self.image.get('path') or 'an image'}: {_problem(self.image, error)}") from error


def examine(image: Mapping[str, Any]) -> Examined:
    """Read an image whole and say what it is, or what is wrong with it."""
    try:
        content = _content(image)
        from PIL import Image

        with _open(content) as opened:
            width, height = _upright_size(opened)
            kind = f"{opened.format} {opened.mode}"
            opened.draft(None, (4 * THUMBNAIL, 4 * THUMBNAIL))
            small = _pixels(opened).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    except Exception as error:  # as in `Unread`
        return Examined(_problem(image, error))
    return Examined(None, hashlib.sha256(content).hexdigest(), width, height, kind, small.tobytes())


def examine_all(images: Iterable[Mapping[str, Any]], *, count: int) -> list[Examined]:
    """`examine` each image, on all cores, under a progress bar where there are many."""
    from tqdm import tqdm

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: list[Examined] = []
    # Pillow works without Python's lock while it decodes.
    with (
        ThreadPoolExecutor(cores) as pool,
        tqdm(total=count, desc="read images", unit="image", leave=False, disable=count < _BARS_FROM) as bar,
    ):
        for part in _parts(images, _AT_ONCE):
            found += pool.map(examine, part)
            bar.update(len(part))
    return found


def thumbnails(parts: Iterable[bytes]) -> np.ndarray:
    """Pixels of thumbnails in [0, 1], `[images, 16 x 16 x 3]`."""
    import numpy as np

    pixels = np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, THUMBNAIL * THUMBNAIL * 3)
    return pixels.astype(np.float32) / 255


def _parts(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def _content(image: Mapping[str, Any]) -> bytes:
    content = image.get("bytes")
    if content is not None:
        return bytes(content)
    return Path(image["path"]).read_bytes()


def _open(content: bytes) -> ImageFile:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, which do not touch the pixels
        return Image.open(io.BytesIO(content))


def _upright_size(opened: Image) -> tuple[int, int]:
    """Width and height once it is turned as its EXIF orientation says."""
    width, height = opened.size
    return (height, width) if _orientation(opened) in _TURNED else (width, height)


def _pixels(opened: Image) -> Image:
    """Upright RGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened.load()
        return _to_rgb(_upright(opened))


def _orientation(image: Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata of an image that is whole
        return 1


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if _orientation(image) != 1 else image


def _to_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range nobody knows")
    if image.mode.startswith("I"):
        import numpy as np

        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 0xFFFF:
            raise ValueError("its pixels have more than 16 bits")
        image = Image.fromarray((deep.astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.new("RGBA", over.size, "white")
        image.alpha_composite(over)
    return image if image.mode == "RGB" else image.convert("RGB")


def _problem(image: Mapping[str, Any], error: Exception) -> str:
    """Why an image can't be read, in words for its owner."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "a folder, not a file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels to be safe"
    if isinstance(error, UnidentifiedImageError):
        return _stranger(_content(image))
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"damaged or cut off ({reason})" if not isinstance(error, ValueError) else reason


def _stranger(content: bytes) -> str:
    start = content[:512].lstrip().lower()
    if not content:
        return "empty"
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not an image: the download went wrong"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image: run git lfs pull"
    if start.startswith(b"<svg") or b"<svg" in start:
        return "an SVG drawing, which has no pixels"
    return "not an image that Pillow can read"
