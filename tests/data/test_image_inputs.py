"""Transforms of images: torchvision's and transformers' arithmetic, the row's own random numbers."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from nlp_finetune.data.drawing import generator
from nlp_finetune.data.image_inputs import ImageInputs, Preprocessing, collate, from_settings, to_settings
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
    drawn = ImageInputs(how)(row(image), generator(0, 0, 0))
    assert torch.equal(how.normalised(collate([drawn])["pixel_values"])[0], theirs(image))


def test_a_batch_has_bytes_and_labels() -> None:
    rows = [ImageInputs(SMALL)(row(picture(40, 40), labels=i), generator(0, 0, i)) for i in range(3)]
    batch = collate(rows)
    assert batch["pixel_values"].shape == (3, 3, 32, 32)
    assert batch["pixel_values"].dtype == torch.uint8
    assert batch["labels"].tolist() == [0, 1, 2]
    assert "labels" not in collate([{"pixels": rows[0]["pixels"]}])


def test_normalising_gives_floats_that_lie_as_the_bytes_did_and_leaves_those_alone() -> None:
    bytes_ = collate([{"pixels": np.asarray(picture(20, 12))} for _ in range(2)])["pixel_values"]
    for pixels in (bytes_, bytes_.float()):
        before = pixels.clone()
        found = SMALL.normalised(pixels)
        assert (found.dtype, found.shape) == (torch.float32, pixels.shape)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(pixels, before)
        assert torch.equal(found, transforms.Normalize(MEAN, STD)(before / 255))


@pytest.mark.parametrize("size", [(40, 40), (33, 61), (259, 300), (51, 97), (24, 96)])
def test_what_is_saved_gives_transformers_the_same_pixels(size: tuple[int, int]) -> None:
    # Where an odd number of pixels is cut off, transformers' Pillow processor may be one pixel beside torchvision.
    from transformers import CLIPImageProcessorPil

    for how in (SMALL, USUAL):
        settings = {k: v for k, v in to_settings(how).items() if k != "image_processor_type"}
        theirs = CLIPImageProcessorPil(**settings)(picture(*size), return_tensors="pt")["pixel_values"][0]
        drawn = ImageInputs(how)(row(picture(*size)), generator(0, 0, 0))
        assert (how.normalised(collate([drawn])["pixel_values"])[0] - theirs).abs().max() < 1e-6


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
