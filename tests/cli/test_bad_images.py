"""Wrong input of the image task: one message, exit code 2, no traceback, nothing written."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.command_line import run

RECIPE = ("--recipe", "image_cls", "train.threads=1", "train.workers=0", "train.max_steps=1")
SCRATCH = ("model.checkpoint=scratch:resnet18",)
DATA = ("data.source=pictures",)


def pictures(folder: Path, *, classes: tuple[str, ...] = ("a", "b"), each: int = 4) -> None:
    for shade, name in enumerate(classes):
        (folder / "pictures" / name).mkdir(parents=True)
        for i in range(each):
            Image.new("RGB", (16, 16), (40 * shade, 10 * i, 0)).save(folder / "pictures" / name / f"{i}.png")


def listed(rows: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        pictures(folder)
        (folder / "list.csv").write_text(rows)

    return make


def page(folder: Path) -> None:
    pictures(folder)
    (folder / "pictures" / "a" / "page.jpg").write_text("<!DOCTYPE html><title>Not found</title>")


def cut(folder: Path) -> None:
    pictures(folder)
    file = folder / "pictures" / "a" / "0.png"
    Image.effect_noise((60, 60), 90).save(file)
    file.write_bytes(file.read_bytes()[:2000])


def pickled(folder: Path) -> None:
    pictures(folder)
    torch.save(torch.nn.Linear(2, 2), folder / "model.pth")


def stranger(folder: Path) -> None:
    pictures(folder)
    torch.save({"encoder.weight": torch.zeros(3, 3)}, folder / "model.pth")


def one_class(folder: Path) -> None:
    pictures(folder, classes=("a",))


def flat(folder: Path) -> None:
    pictures(folder)
    (folder / "pictures" / "a").rename(folder / "flat")


def empty(folder: Path) -> None:
    (folder / "pictures" / "a").mkdir(parents=True)


CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str]] = {
    # name: (what is there, arguments, what the message must say)
    "an image that is HTML": (page, (*SCRATCH, *DATA), r"1 of 9 images.*page\.jpg: an HTML page.*on_corrupt=skip"),
    "an image that is cut off": (cut, (*SCRATCH, *DATA), r"0\.png: damaged or cut off"),
    "images that are not there": (
        listed("image,label\nno/1.png,a\nno/2.png,b\n"),
        (*SCRATCH, "data.source=list.csv"),
        "2 of 2 images can't be used.*there is no such file",
    ),
    "a list without a column of images": (
        listed("text,label\nhello,a\nworld,b\n"),
        (*SCRATCH, "data.source=list.csv"),
        "No column of images.*Columns: text, label",
    ),
    "a wrong column": (pictures, (*SCRATCH, *DATA, "task.image=photo"), "no column 'photo'"),
    "one class": (one_class, (*SCRATCH, *DATA), "only one class"),
    "a folder without images": (empty, (*SCRATCH, *DATA), "no training data"),
    "images without classes": (
        flat,
        (*SCRATCH, "data.source=flat"),
        "label",
    ),
    "an unknown architecture": (pictures, ("model.checkpoint=torchvision:resnet20", *DATA), "no ResNet of that name"),
    "an unknown architecture from scratch": (pictures, ("model.checkpoint=scratch:resnet19", *DATA), "Did you mean"),
    "a model of texts": (pictures, ("model.checkpoint=scratch:bert", *DATA), "no AutoModelForImageClassification"),
    "weights with code": (pickled, ("model.checkpoint=model.pth", *DATA), "more than weights"),
    "weights of another model": (stranger, ("model.checkpoint=model.pth", *DATA), "not the weights of a torchvision"),
    "a tokenizer": (pictures, (*SCRATCH, *DATA, "model.tokenizer=train"), "images have no tokens"),
    "a crop scale upside down": (
        pictures,
        (*SCRATCH, *DATA, "augment.crop=[1.0, 0.2]"),
        "the least comes first",
    ),
    "a format that cannot hold the model": (
        pictures,
        ("model.checkpoint=scratch:resnext50_32x4d", *DATA, "model.save_format=transformers"),
        "can't hold resnext50_32x4d",
    ),
    "a format that cannot hold the sizes": (
        pictures,
        (*SCRATCH, *DATA, "model.config={depths: [1, 1, 1, 1]}", "model.save_format=timm"),
        "for ResNets of torchvision's sizes",
    ),
    "a format that cannot hold the stem": (
        pictures,
        ("model.checkpoint=scratch:resnet18_small_stem", *DATA, "model.save_format=timm"),
        "can't hold the stem for small images",
    ),
    "an adapter on too many groups": (
        pictures,
        ("model.checkpoint=scratch:resnext50_32x4d", *DATA, "lora.rank=8"),
        "groups",
    ),
}


def listing(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*")}


@pytest.mark.parametrize("name", CASES)
def test_wrong_images_get_one_message_and_exit_code_2(name: str, tmp_path: Path) -> None:
    prepare, arguments, expected = CASES[name]
    prepare(tmp_path)
    before = listing(tmp_path)
    done = run(*RECIPE, *arguments, cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    message = done.stderr[done.stderr.index("error: ") :]
    assert re.search(expected, message, re.DOTALL), message
    assert listing(tmp_path) == before


def test_a_format_for_images_is_refused_for_texts(tmp_path: Path) -> None:
    done = run("--recipe", "text_cls", "--demo", "model.save_format=timm", "train.max_steps=1", cwd=tmp_path)
    assert done.code == 2
    assert "for image models only" in done.stderr
