"""Each way of changing images by what it does; the row's own random numbers, and nobody else's."""

from __future__ import annotations

import io
import pickle
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from nlp_finetune.augment.images import ImageWays, _shrink, drawing_from, make
from nlp_finetune.data.drawing import generator
from nlp_finetune.data.image_inputs import Preprocessing
from nlp_finetune.data.images import Unread

HOW = Preprocessing(36, (32, 32), 2, (0.5, 0.25, 0.75), (0.2, 0.2, 0.2))
COLOUR = [128, 64, 191]
"""The mean colour of `HOW`, which stands for what is outside of an image."""
EACH: dict[str, Any] = {
    "crop": (0.3, 0.9),
    "padded_crop": 4,
    "resize": (0.6, 1.4),
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "rotation": 30.0,
    "trivial_augment": True,
    "rand_augment": 9,
    "color_jitter": 0.4,
    "noise": 0.1,
    "erasing": 0.5,
}


def picture(width: int = 50, height: int = 40) -> Image.Image:
    random = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def changed(draw: int, image: Image.Image | None = None, probability: float = 1.0, **ways: Any) -> np.ndarray:
    change = make(HOW, ImageWays(**ways), probability=probability)
    return change(image or picture(), generator(3, draw, 7))


def evaluated(image: Image.Image | None = None) -> np.ndarray:
    return np.asarray(HOW.evaluate(image or picture()))


@pytest.mark.parametrize("name", EACH)
def test_a_draw_is_the_same_whenever_it_is_drawn_and_another_in_other_epochs(name: str) -> None:
    draws = [changed(epoch, **{name: EACH[name]}) for epoch in range(8)]
    torch.manual_seed(5)
    assert all((changed(epoch, **{name: EACH[name]}) == draw).all() for epoch, draw in enumerate(draws))
    assert len({draw.tobytes() for draw in draws}) > 1


@pytest.mark.parametrize("size", [(50, 40), (20, 90), (8, 8)])
@pytest.mark.parametrize("name", EACH)
def test_every_way_gives_bytes_of_the_size_that_the_model_sees(name: str, size: tuple[int, int]) -> None:
    found = changed(0, picture(*size), **{name: EACH[name]})
    assert found.shape == (32, 32, 3)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("name", EACH)
def test_torchs_own_random_numbers_are_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    changed(0, **{name: EACH[name]})
    assert torch.equal(torch.get_rng_state(), before)


def test_all_ways_together_can_be_sent_to_another_process() -> None:
    several = {name: value for name, value in EACH.items() if name not in ("padded_crop", "resize", "rand_augment")}
    change = make(HOW, ImageWays(**several), probability=0.9)
    again = pickle.loads(pickle.dumps(change))
    assert (change(picture(), generator(0, 0, 0)) == again(picture(), generator(0, 0, 0))).all()


def test_the_rest_of_the_rows_is_as_in_evaluation() -> None:
    same = [(changed(i, probability=0.5, noise=0.1) == evaluated()).all() for i in range(200)]
    assert 70 < sum(same) < 130


def test_a_crop_is_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        v2.RandomResizedCrop, "make_params", lambda *_: {"top": 3, "left": 5, "height": 30, "width": 40}
    )
    theirs = functional.resized_crop(picture(), top=3, left=5, height=30, width=40, size=[32, 32])
    assert (changed(0, crop=(0.1, 1.0)) == np.asarray(theirs)).all()


def jpeg(width: int, height: int) -> Unread:
    """A smooth picture with some grain, as photographs are."""
    return Unread({"bytes": _content(width, height), "path": None})


@lru_cache
def _content(width: int, height: int) -> bytes:
    y, x = np.mgrid[:height, :width]
    waves = [127 + 100 * np.sin(x / a) * np.cos(y / b) for a, b in ((40, 60), (55, 35), (70, 50))]
    grain = np.random.default_rng(0).normal(0, 4, (height, width, 1))
    pixels = (np.stack(waves, axis=2) + grain).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=92)
    return stream.getvalue()


@pytest.mark.parametrize("size", [(800, 600), (300, 500), (60, 50)])
def test_a_crop_of_a_large_jpeg_that_is_not_decoded_whole_is_nearly_that_of_all_its_pixels(
    size: tuple[int, int],
) -> None:
    change = make(HOW, ImageWays(crop=(0.08, 1.0), horizontal_flip=0.5), probability=1.0)
    for draw in range(6):
        quick = change(jpeg(*size), generator(3, draw, 7)).astype(int)
        whole = change(jpeg(*size).load(), generator(3, draw, 7)).astype(int)
        assert np.abs(quick - whole).mean() < 2


def test_crops_with_few_pixels_are_decoded_whole_and_exact() -> None:
    change = make(HOW, ImageWays(crop=(0.08, 1.0)), probability=1.0)
    for draw in range(5):
        quick, whole = (change(image, generator(3, draw, 7)) for image in (jpeg(120, 90), jpeg(120, 90).load()))
        assert (quick == whole).all()


def test_what_is_decoded_has_twice_the_pixels_that_the_model_sees() -> None:
    assert [_shrink(side, 4000, size=(32, 32)) for side in (10, 127, 128, 255, 256, 511, 512, 4000)] == [
        1, 1, 2, 2, 4, 4, 8, 8,
    ]  # fmt: skip
    assert _shrink(4000, 128, size=(32, 32)) == 2


def test_an_image_is_decoded_once_and_as_small_as_its_crop_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    whole = Unread.load

    def load(self: Unread, *, shrink: int = 1) -> Image.Image:
        sizes.append(shrink)
        return whole(self, shrink=shrink)

    monkeypatch.setattr(Unread, "load", load)
    make(HOW, ImageWays(crop=(0.9, 1.0), rotation=9.0, noise=0.1), probability=1.0)(jpeg(600, 600), generator(0, 0, 0))
    assert sizes == [8]


def test_crops_of_the_whole_area_of_a_square_are_the_whole_image() -> None:
    image = picture(64, 64)
    whole = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    # Shapes from 3:4 to 4:3 do not fit a square of all its area, and then the whole is taken.
    found = [np.abs(changed(i, image, crop=(1.0, 1.0)).astype(int) - whole).max() for i in range(10)]
    assert min(found) == 0


def test_flips_are_mirror_images_of_about_their_share() -> None:
    plain = evaluated()
    for name, mirrored in (("horizontal_flip", plain[:, ::-1]), ("vertical_flip", plain[::-1])):
        draws = [changed(i, **{name: 0.5}) for i in range(60)]
        flipped = [(draw == mirrored).all() for draw in draws]
        assert all(one or (draw == plain).all() for one, draw in zip(flipped, draws, strict=True))
        assert 15 < sum(flipped) < 45


def test_a_padded_crop_moves_the_image_and_fills_with_the_mean_colour() -> None:
    plain = evaluated()
    for i in range(10):
        found = changed(i, padded_crop=4)
        padded = np.full((40, 40, 3), COLOUR, np.uint8)
        padded[4:36, 4:36] = plain
        places = [(y, x) for y in range(9) for x in range(9) if (padded[y : y + 32, x : x + 32] == found).all()]
        assert len(places) == 1


def test_a_smaller_image_is_padded_with_the_mean_colour() -> None:
    found = changed(0, resize=(0.5, 0.5))
    assert (found == COLOUR).all(axis=2).sum() >= 32 * 32 - 16 * 16


def test_a_rotation_moves_the_corners_and_leaves_the_middle() -> None:
    image = Image.fromarray(np.full((64, 64, 3), 255, np.uint8))
    turned = [changed(i, image, rotation=45.0) for i in range(6)]
    assert any((one[0, 0] == COLOUR).all() for one in turned)
    assert all((one[12:20, 12:20] == 255).all() for one in turned)


def test_noise_has_the_asked_deviation() -> None:
    image = Image.fromarray(np.full((64, 64, 3), 128, np.uint8))
    assert changed(0, image, noise=0.1).std() == pytest.approx(25.5, rel=0.05)


def test_erasing_blots_out_one_rectangle_with_the_mean_colour() -> None:
    plain = evaluated()
    found = changed(0, erasing=1.0)
    blotted = (found != plain).any(axis=2)
    rows, columns = np.flatnonzero(blotted.any(axis=1)), np.flatnonzero(blotted.any(axis=0))
    box = found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert (box == COLOUR).all()
    assert blotted.sum() <= box.shape[0] * box.shape[1]


def test_color_jitter_keeps_shapes_and_order_of_light() -> None:
    grey = np.linspace(60, 190, 32).astype(np.uint8)
    image = Image.fromarray(np.repeat(np.tile(grey, (32, 1))[..., None], 3, axis=2))
    how = Preprocessing(32, (32, 32), 2, HOW.mean, HOW.std)
    found = make(how, ImageWays(color_jitter=0.4), probability=1.0)(image, generator(0, 0, 1))
    assert (np.diff(found[16, :, 0].astype(int)) >= 0).all()
    assert (found != np.asarray(image)).any()


def test_numbers_drawn_inside_come_from_the_generator_alone() -> None:
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with drawing_from(generator(0, 1, 2)):
            drawn.append(torch.rand(3))
        after = torch.rand(1)
        torch.manual_seed(seed)
        assert torch.equal(after, torch.rand(1))
    assert torch.equal(*drawn)
