"""Image files as they come: upright RGB, or named with what is wrong."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nlp_finetune.data import images
from nlp_finetune.errors import InputError

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (24, 40, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> dict:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def pixels(image: dict) -> np.ndarray:
    return np.asarray(images.Unread(image).load())


def test_an_rgb_image_is_read_as_it_is() -> None:
    assert (pixels(encoded(Image.fromarray(PIXELS))) == PIXELS).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    # How a camera stores a picture that is PIXELS when it is upright.
    undo = {1: [], 2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}[orientation]
    stored = Image.fromarray(PIXELS)
    for turn in undo:
        stored = stored.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encoded(stored, exif=exif)
    assert (pixels(image) == PIXELS).all()
    found = images.examine(image)
    assert (found.width, found.height) == (40, 24)


def test_what_is_transparent_lies_on_white() -> None:
    over = np.dstack([PIXELS, np.zeros((24, 40), np.uint8)])
    over[:, :20, 3] = 255
    read = pixels(encoded(Image.fromarray(over)))
    assert (read[:, :20] == PIXELS[:, :20]).all()
    assert (read[:, 20:] == 255).all()


def test_a_palette_with_a_transparent_colour_lies_on_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 1)
    read = pixels(encoded(image, transparency=0))
    assert read[0, 0].tolist() == [0, 0, 255]
    assert read[3, 3].tolist() == [255, 255, 255]


def test_grey_has_three_equal_channels() -> None:
    read = pixels(encoded(Image.fromarray(PIXELS[..., 0])))
    assert (read == PIXELS[..., :1]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_greys_keep_their_upper_eight_bits(kind: str) -> None:
    deep = RANDOM.integers(0, 65536, (10, 12), dtype=np.uint16)
    read = pixels(encoded(Image.fromarray(deep), kind))
    assert (read[..., 0] == deep >> 8).all()


def test_black_and_white_and_cmyk_become_rgb() -> None:
    assert set(pixels(encoded(Image.fromarray(PIXELS[..., 0]).convert("1"))).ravel()) == {0, 255}
    assert pixels(encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG")).shape == PIXELS.shape


def test_of_an_animation_the_first_frame_is_taken() -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    image = encoded(first, "GIF", save_all=True, append_images=[second])
    assert pixels(image)[0, 0].tolist() == [255, 0, 0]


def test_an_examined_image_has_its_hash_size_and_thumbnail() -> None:
    image = encoded(Image.fromarray(PIXELS).resize((400, 240)), "JPEG")
    found = images.examine(image)
    assert found.problem is None
    assert found.digest == hashlib.sha256(image["bytes"]).hexdigest()
    assert (found.width, found.height, found.kind) == (400, 240, "JPEG RGB")
    assert images.thumbnails([found.thumbnail]).shape == (1, 16 * 16 * 3)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_can_be_decoded_at_a_part_of_its_size(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encoded(Image.fromarray(PIXELS).resize((400, 240)), "JPEG", exif=exif)
    size = images.Unread(image).size
    assert size == ((400, 240) if orientation == 1 else (240, 400))
    for shrink in (1, 2, 4, 8):
        assert images.Unread(image).load(shrink=shrink).size == (size[0] // shrink, size[1] // shrink)
    assert images.Unread(image).shrinks
    assert not images.Unread(encoded(Image.fromarray(PIXELS))).shrinks


PNG = encoded(Image.fromarray(PIXELS))["bytes"]
JPEG = encoded(Image.fromarray(RANDOM.integers(0, 256, (80, 80, 3), dtype=np.uint8)), "JPEG")["bytes"]
PROBLEMS = {
    "an HTML page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
    "an empty file": (b"", "empty"),
    "a truncated PNG": (PNG[: len(PNG) // 2], "damaged or cut off"),
    "a truncated JPEG": (JPEG[: len(JPEG) // 2], "damaged or cut off"),
    "a PNG without its data": (PNG[:40], "damaged|not an image"),
    "a drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "SVG"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    "some text": (b"hello", "not an image"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_is_wrong_with_a_file_is_said(name: str) -> None:
    content, expected = PROBLEMS[name]
    assert any(word in (images.examine({"bytes": content, "path": None}).problem or "") for word in expected.split("|"))
    with pytest.raises(InputError, match=expected):
        images.Unread({"bytes": content, "path": None}).load()


def test_files_that_are_not_there_and_folders_are_named(tmp_path: Path) -> None:
    assert images.examine({"bytes": None, "path": str(tmp_path / "no.png")}).problem == "there is no such file"
    assert images.examine({"bytes": None, "path": str(tmp_path)}).problem == "a folder, not a file"


def test_numbers_without_a_known_range_are_refused() -> None:
    image = encoded(Image.fromarray(RANDOM.random((4, 4), dtype=np.float32)), "TIFF")
    assert "floating-point" in (images.examine(image).problem or "")


def test_many_images_are_examined_in_their_order() -> None:
    many = [encoded(Image.new("L", (3 + i, 4))) for i in range(20)]
    assert [one.width for one in images.examine_all(many, count=20)] == [3 + i for i in range(20)]
