"""ResNets between torchvision, transformers and timm: names, shapes, and the same logits to the last digit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification

from nlp_finetune.errors import InputError
from nlp_finetune.models import hub, image_processor, loading, resnet_files, resnets
from nlp_finetune.models.checkpoint import resolve

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def theirs(name: str, *, labels: int = 5) -> torch.nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=labels)
    for part in model.modules():  # statistics as after training: not 0 and 1
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return model.eval()


def logits(model: torch.nn.Module, images: torch.Tensor = IMAGES) -> torch.Tensor:
    with torch.inference_mode():
        found = model(images)
    return getattr(found, "logits", found)


@pytest.mark.parametrize("name", resnets.ARCHITECTURES)
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        state = torchvision.models.get_model(name, weights=None, num_classes=7).state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert resnets.expected(resnets.ARCHITECTURES[name], labels=7) == shapes
    assert resnets.recognise(state, given="x").name == name


@pytest.mark.parametrize("name", [n for n, a in resnets.ARCHITECTURES.items() if a.plain])
def test_every_name_has_one_in_transformers_and_back(name: str) -> None:
    architecture = resnets.ARCHITECTURES[name]
    config = ResNetConfig(**{**resnets.configuration(architecture, ["a", "b"])})
    with torch.device("meta"):
        wanted = ResNetForImageClassification(config).state_dict()
    given = resnets.expected(architecture, labels=2)
    renamed = resnets.to_transformers(given)
    assert {key: tuple(value.shape) for key, value in wanted.items()} == renamed
    assert resnets.to_torchvision(renamed, architecture) == given
    assert resnets.of_configuration(config.to_dict()) is architecture


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_of_weights_gives_torchvisions_logits(name: str, ending: str, tmp_path: Path) -> None:
    model = theirs(name)
    file = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}, "epoch": 3}, file)
    else:
        save_file(model.state_dict(), file)
    folder = hub.local_folder(resolve(str(file)), weights=True)
    loaded = AutoModelForImageClassification.from_pretrained(folder).eval()
    assert torch.equal(logits(loaded), logits(model))
    assert image_processor.load(resolve(str(file)), size=None, center=None).preprocessing.size == (224, 224)


def test_a_wide_resnet_keeps_torchvisions_names(tmp_path: Path) -> None:
    model = theirs("wide_resnet50_2")
    torch.save(model.state_dict(), tmp_path / "wide.pth")
    folder = hub.local_folder(resolve(str(tmp_path / "wide.pth")), weights=True)
    loaded = AutoModelForImageClassification.from_pretrained(folder).eval()
    assert torch.equal(logits(loaded), logits(model))
    assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()


def test_weights_that_torchvision_has_downloaded_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    model = theirs("resnet18", labels=1000)
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(model.state_dict(), tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
    checkpoint = resolve("torchvision:resnet18")
    loaded = AutoModelForImageClassification.from_pretrained(hub.local_folder(checkpoint, weights=True)).eval()
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.config.id2label[281] == "tabby"
    how = image_processor.load(checkpoint, size=None, center=None).preprocessing
    assert (how.resize, how.crop) == (256, (224, 224))
    again = image_processor.load(resolve("torchvision:resnet50"), size=None, center=None).preprocessing
    assert (again.resize, again.crop) == (232, (224, 224))


def test_weights_that_cannot_be_fetched_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with pytest.raises(InputError, match=r"resnet18-f37072fd\.pth can't be fetched.*scratch:resnet18"):
        hub.local_folder(resolve("torchvision:resnet18"), weights=True)


def test_of_several_weights_one_is_chosen_by_name() -> None:
    how = image_processor.load(resolve("torchvision:resnet50/IMAGENET1K_V1"), size=None, center=None).preprocessing
    assert how.resize == 256
    with pytest.raises(InputError, match="no weights V9; it has IMAGENET1K_V1, IMAGENET1K_V2"):
        image_processor.load(resolve("torchvision:resnet50/V9"), size=None, center=None)


def test_a_size_of_ones_own_keeps_the_share_that_evaluation_sees() -> None:
    load = image_processor.load
    given = resolve("torchvision:resnet18")
    assert load(given, size=112, center=None).preprocessing.resize == 128
    assert load(given, size=112, center=1.0).preprocessing.resize == 112
    assert load(resolve("scratch:resnet18"), size=64, center=None).preprocessing.resize == 64


@pytest.mark.parametrize("name", ["resnet19", "vgg16"])
def test_an_unknown_architecture_lists_those_there_are(name: str) -> None:
    with pytest.raises(InputError, match="resnet18, resnet34"):
        resolve(f"torchvision:{name}")


def test_weights_of_another_model_are_refused_with_the_nearest(tmp_path: Path) -> None:
    weights = theirs("resnet34").state_dict()
    weights["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    torch.save(weights, tmp_path / "small_stem.th")
    expected = r"Nearest is resnet34, with 1 differences .* conv1\.weight is 64x3x3x3, not 64x3x7x7"
    with pytest.raises(InputError, match=expected):
        hub.local_folder(resolve(str(tmp_path / "small_stem.th")), weights=True)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(theirs("resnet18"), tmp_path / "whole.pth")
    with pytest.raises(InputError, match="more than weights"):
        hub.local_folder(resolve(str(tmp_path / "whole.pth")), weights=True)


def test_a_file_that_is_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text("nothing")
    (tmp_path / "x.pth").write_text("nothing")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("x.safetensors", "x.pth", "list.pth"):
        with pytest.raises(InputError, match=r"no weights|more than weights"):
            hub.local_folder(resolve(str(tmp_path / name)), weights=True)


def timm_folder(folder: Path, name: str) -> torch.nn.Module:
    model = theirs(name)
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    described = resnets.timm_configuration(resnets.ARCHITECTURES[name], list("abcde"))
    described["pretrained_cfg"] |= {"interpolation": "bicubic", "crop_pct": 0.95}
    (folder / "config.json").write_text(json.dumps(described))
    return model


def test_a_plain_resnet_of_timm_becomes_one_of_transformers(tmp_path: Path) -> None:
    model = timm_folder(tmp_path / "timm", "resnet18")
    checkpoint = resolve(str(tmp_path / "timm"))
    loaded = loading.load_saved_model(tmp_path / "timm", auto_class="AutoModelForImageClassification")
    assert type(loaded) is ResNetForImageClassification
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.config.id2label[4] == "e"
    how = image_processor.load(checkpoint, size=None, center=None).preprocessing
    assert (how.resize, how.resample) == (int(224 / 0.95), 3)


@pytest.mark.slow
def test_timms_format_loads_in_timm_and_torchvision_with_the_same_logits(tmp_path: Path) -> None:
    model = theirs("resnet18")
    raw = resnets.configuration(resnets.ARCHITECTURES["resnet18"], list("abcde"))
    ours = ResNetForImageClassification(ResNetConfig(**raw)).eval()
    ours.load_state_dict(resnets.to_transformers(model.state_dict()))
    ours.save_pretrained(tmp_path / "model")
    processor = image_processor.load(resolve("scratch:resnet18"), size=93, center=None)
    resnet_files.to_timm(tmp_path / "model", processor.settings())
    code = f"""
import nlp_finetune.torchvision_guard, torch, timm, torchvision, sys
from safetensors.torch import load_file
images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
model = timm.create_model("local-dir:{tmp_path / "model"}", pretrained=True).eval()
other = torchvision.models.resnet18(num_classes=5).eval()
other.load_state_dict(load_file("{tmp_path / "model" / "model.safetensors"}"))
with torch.inference_mode():
    torch.save([model(images), other(images)], "{tmp_path / "out.pt"}")
from timm.data import resolve_model_data_config, create_transform
print(create_transform(**resolve_model_data_config(model)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for found in torch.load(tmp_path / "out.pt"):
        assert torch.equal(found, logits(model))
    assert "size=93" in done.stdout
