"""Transforms of images: torchvision's and transformers' arithmetic, the row's own random numbers."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from nlp_finetune.data.drawing import generator
from nlp_finetune.data.image_inputs import ImageCollator, ImageInputs, Preprocessing, from_settings, to_settings
from nlp_finetune.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
USUAL = Preprocessing(256, (224, 224), 2, MEAN, STD)
SMALL = Preprocessing(36, (32, 32), 2, MEAN, STD)


def picture(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def row(image: Image.Image, **more) -> dict:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"image": {"bytes": buffer.getvalue(), "path": None}, **more}


def inputs(how: Preprocessing, *, training: bool, scale=(0.3, 1.0), flip: bool = True) -> ImageInputs:
    return ImageInputs(how, training, scale, flip)


@pytest.mark.parametrize("how", [SMALL, USUAL], ids=["32", "224"])
@pytest.mark.parametrize("size", [(40, 40), (33, 61), (97, 50), (259, 300), (20, 90), (8, 8)])
def test_evaluation_is_torchvisions_to_the_last_digit(how: Preprocessing, size: tuple[int, int]) -> None:
    theirs = transforms.Compose(
        [
            transforms.Resize(how.resize),
            transforms.CenterCrop(how.size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    image = picture(*size)
    drawn = inputs(how, training=False)(row(image), generator(0, 0, 0))
    assert torch.equal(ImageCollator(how)([drawn])["pixel_values"][0], theirs(image))


def test_a_random_crop_is_torchvisions_crop_of_the_same_box(monkeypatch: pytest.MonkeyPatch) -> None:
    from nlp_finetune.data import image_inputs

    monkeypatch.setattr(image_inputs, "_random_box", lambda *a, **k: (5, 3, 45, 33))
    image = picture(60, 50)
    ours = SMALL.crop_at_random(image, generator(0, 0, 0), scale=(0.1, 1.0))
    theirs = functional.resized_crop(image, top=3, left=5, height=30, width=40, size=[32, 32])
    assert (np.asarray(ours) == np.asarray(theirs)).all()


def test_crops_have_the_shares_and_shapes_that_were_asked_for() -> None:
    from nlp_finetune.data.image_inputs import _random_box

    boxes = np.array([_random_box(200, 160, generator(1, 0, i), scale=(0.2, 0.6)) for i in range(300)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share = width * height / (200 * 160)
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2].max() <= 200
    assert boxes[:, 3].max() <= 160
    assert 0.19 < share.min() < 0.25
    assert 0.55 < share.max() < 0.61
    assert (width / height).min() > 0.73
    assert (width / height).max() < 1.37


def test_an_image_too_narrow_for_any_crop_gives_its_middle() -> None:
    from nlp_finetune.data.image_inputs import _random_box

    assert _random_box(1000, 10, generator(0, 0, 0), scale=(0.9, 1.0)) == (493, 0, 506, 10)


def test_the_same_draw_gives_the_same_pixels_and_another_epoch_others() -> None:
    change = inputs(SMALL, training=True)
    one, again, later = (change(row(picture(50, 40)), generator(3, e, 7))["pixels"] for e in (0, 0, 1))
    assert (one == again).all()
    assert (one != later).any()


def test_mirroring_is_on_top_of_the_same_crop() -> None:
    def drawn(i: int, *, flip: bool) -> np.ndarray:
        return inputs(SMALL, training=True, flip=flip)(row(picture(50, 40)), generator(0, 0, i))["pixels"]

    mirrored = [i for i in range(40) if (drawn(i, flip=True) != drawn(i, flip=False)).any()]
    assert 8 < len(mirrored) < 32
    assert all((drawn(i, flip=True) == drawn(i, flip=False)[:, ::-1]).all() for i in mirrored)


def test_a_batch_has_normalised_pixels_and_labels() -> None:
    rows = [inputs(SMALL, training=False)(row(picture(40, 40), labels=i), generator(0, 0, i)) for i in range(3)]
    batch = ImageCollator(SMALL)(rows)
    assert batch["pixel_values"].shape == (3, 3, 32, 32)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["labels"].tolist() == [0, 1, 2]
    assert "labels" not in ImageCollator(SMALL)([{"pixels": rows[0]["pixels"]}])


@pytest.mark.parametrize("size", [(40, 40), (33, 61), (259, 300), (51, 97), (24, 96)])
def test_what_is_saved_gives_transformers_the_same_pixels(size: tuple[int, int]) -> None:
    # Where an odd number of pixels is cut off, transformers' Pillow processor may be one pixel beside torchvision.
    from transformers import CLIPImageProcessorPil

    for how in (SMALL, USUAL):
        settings = {k: v for k, v in to_settings(how).items() if k != "image_processor_type"}
        theirs = CLIPImageProcessorPil(**settings)(picture(*size), return_tensors="pt")["pixel_values"][0]
        drawn = inputs(how, training=False)(row(picture(*size)), generator(0, 0, 0))
        assert (ImageCollator(how)([drawn])["pixel_values"][0] - theirs).abs().max() < 1e-6


def test_settings_are_read_back() -> None:
    squeezed = Preprocessing((48, 32), None, 3, MEAN, STD)
    for how in (SMALL, USUAL, squeezed):
        assert from_settings(to_settings(how), given="x") == how


def test_convnexts_way_of_naming_sizes_is_understood() -> None:
    settings = {"size": 224, "crop_pct": 0.875, "resample": 3, "image_mean": MEAN, "image_std": STD}
    assert from_settings(settings, given="x") == Preprocessing(256, (224, 224), 3, MEAN, STD)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"longest_edge": 800}, "image_mean": MEAN, "image_std": STD},
        {"size": {"height": 32, "width": 32}, "rescale_factor": 1.0, "image_mean": MEAN, "image_std": STD},
    ],
)
def test_settings_that_cannot_be_followed_are_refused(settings: dict) -> None:
    with pytest.raises(InputError, match="preprocessor_config"):
        from_settings(settings, given="x")
