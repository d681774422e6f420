"""Weights of ResNets from torchvision, a file or timm, as folders that transformers loads, and back again.

A checkpoint in another format is converted once, into a folder of the Hugging Face cache; from there on it
is an ordinary checkpoint of transformers, labels, preprocessing and all.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

from nlp_finetune.errors import InputError
from nlp_finetune.models import resnets
from nlp_finetune.models.checkpoint import Checkpoint
from nlp_finetune.models.resnets import Architecture

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"
PREPROCESSING = "preprocessor_config.json"
_VERSION = 1
"""Of the conversion; part of the folder's name."""


def from_torchvision(checkpoint: Checkpoint, *, weights: bool) -> Path:
    """Folder with weights that torchvision downloads, or without `weights` with their configuration alone.

    The location is `resnet50`, or `resnet50/IMAGENET1K_V1` for other weights than torchvision's best.
    Raises `InputError` for weights it has not, and where they can't be fetched.
    """
    name, _, version = checkpoint.location.partition("/")
    architecture = resnets.find(name, given=checkpoint.given)
    chosen = _torchvision_weights(architecture, version, given=checkpoint.given)
    settings = chosen.transforms()
    labels = list(chosen.meta["categories"])
    described = _described(
        architecture, labels, resize=settings.resize_size[0], crop=settings.crop_size[0], mean=settings.mean,
        std=settings.std,
    )  # fmt: skip
    if not weights:
        return _made(f"{name}-{chosen.name}-config", lambda folder: _write(folder, described, None))

    def make(folder: Path) -> None:
        _write(folder, described, _in_format(architecture, _download(chosen, given=checkpoint.given)))

    return _made(f"{name}-{chosen.name}", make)


def _torchvision_weights(architecture: Architecture, version: str, *, given: str) -> Any:
    try:
        from torchvision.models import get_model_weights
    except ImportError as error:
        raise InputError(f"{given}: torchvision is not installed. Run: pip install 'nlp-finetune[image]'") from error
    known = get_model_weights(architecture.name)
    if not version:
        return known.DEFAULT
    if version not in known.__members__:
        raise InputError(f"{given}: torchvision has no weights {version}; it has {', '.join(known.__members__)}.")
    return known[version]


def _download(weights: Any, *, given: str) -> Mapping[str, torch.Tensor]:
    try:
        state: Mapping[str, torch.Tensor] = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        return state
    except (URLError, OSError, RuntimeError) as error:
        import torch

        raise InputError(
            f"{given}: {weights.url} can't be fetched ({error}). Where there is a connection, download that file and "
            f"put it into {os.path.join(torch.hub.get_dir(), 'checkpoints')}, or give its path as model.checkpoint; "
            f"model.checkpoint=scratch:{given.removeprefix('torchvision:').partition('/')[0]} starts from nothing."
        ) from error


def from_file(checkpoint: Checkpoint, *, weights: bool) -> Path:
    """Folder with the weights of a `.pth`, `.pt` or `.safetensors` file of a torchvision ResNet.

    Raises `InputError` for a file that can't be read safely, and for weights of another model.
    """
    file = Path(checkpoint.location)
    state = file.stat()
    key = hashlib.sha256(f"{file} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]

    def make(folder: Path) -> None:
        found = _unwrapped(_read(file), given=checkpoint.given)
        architecture = resnets.recognise(found, given=checkpoint.given)
        count = len(found["fc.weight"])
        described = _described(architecture, [f"LABEL_{i}" for i in range(count)], resize=256, crop=224)
        _write(folder, described, _in_format(architecture, found))

    return _made(f"{file.stem}-{key}", make)


def _read(file: Path) -> Any:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{file}: holds more than weights, and is not read for safety. Save the state_dict alone: "
            "torch.save(model.state_dict(), FILE)"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: no weights can be read from it ({reason}).") from error


def _unwrapped(state: Any, *, given: str) -> dict[str, torch.Tensor]:
    """The weights inside what a training script saved: under `state_dict`, with `module.` in front."""
    import torch

    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(torch.is_tensor(value) for value in state.values()):
        raise InputError(f"{given}: holds no weights by name (a state_dict).")
    return {str(name).removeprefix("module.").removeprefix("model."): value for name, value in state.items()}


def readable(folder: Path) -> Path:
    """The folder itself, or for a plain ResNet in timm's format one that holds the same for transformers."""
    file = folder / "config.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return folder
    architecture = resnets.of_configuration(raw) if isinstance(raw, dict) and "architecture" in raw else None
    if architecture is None or not architecture.plain:
        return folder
    described = _from_timm(architecture, raw)
    source = folder / WEIGHTS
    if not source.is_file():
        return _made(f"{architecture.name}-{_key(raw)}-config", lambda made: _write(made, described, None))
    state = source.stat()
    key = _key([raw, str(source.resolve()), state.st_size, state.st_mtime_ns])
    return _made(
        f"{architecture.name}-{key}", lambda made: _write(made, described, _in_format(architecture, _read(source)))
    )


def _from_timm(architecture: Architecture, raw: Mapping[str, Any]) -> dict[str, Any]:
    settings = raw.get("pretrained_cfg") or {}
    count = int(raw.get("num_classes") or settings.get("num_classes") or 1000)
    names = raw.get("label_names") or settings.get("label_names")
    crop = int((settings.get("input_size") or [3, 224, 224])[-1])
    return _described(
        architecture,
        list(names) if names and len(names) == count else [f"LABEL_{i}" for i in range(count)],
        resize=int(crop / float(settings.get("crop_pct") or 0.875)),
        crop=crop,
        mean=settings.get("mean") or resnets.MEAN,
        std=settings.get("std") or resnets.STD,
        resample=resnets.FILTER_NUMBERS.get(settings.get("interpolation"), 2),
    )


def is_timm(folder: Path) -> bool:
    """Whether a folder's configuration is one of timm, or of transformers' wrapper for it."""
    return "architecture" in json.loads((folder / "config.json").read_text(encoding="utf-8"))


def to_timm(folder: Path, settings: Mapping[str, Any]) -> None:
    """Turn a folder of a ResNet into timm's format, in place; `settings` are those of its preprocessing."""
    from safetensors.torch import load_file, save_file

    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = resnets.of_configuration(raw)
    assert architecture is not None, "checked when the recipe was read"
    names = raw.get("label_names") or [raw["id2label"][str(i)] for i in range(len(raw["id2label"]))]
    loaded = {name.removeprefix("timm_model."): value for name, value in load_file(folder / WEIGHTS).items()}
    if "architecture" not in raw:
        loaded = resnets.to_torchvision(loaded, architecture)
    described = resnets.timm_configuration(architecture, names)
    size, crop = settings["size"], settings.get("crop_size") or settings["size"]
    described["pretrained_cfg"] = resnets.timm_preprocessing(
        size.get("shortest_edge", size.get("height")), crop["height"], mean=settings["image_mean"],
        std=settings["image_std"], resample=settings["resample"],
    )  # fmt: skip
    save_file({name: value.contiguous() for name, value in loaded.items()}, folder / WEIGHTS, {"format": "pt"})
    _write_json(folder / "config.json", described)


def _described(
    architecture: Architecture,
    labels: Sequence[str],
    *,
    resize: int,
    crop: int,
    mean: Sequence[float] = resnets.MEAN,
    std: Sequence[float] = resnets.STD,
    resample: int = 2,
) -> dict[str, Any]:
    from nlp_finetune.data.image_inputs import Preprocessing, to_settings

    config = resnets.configuration(architecture, labels)
    if not architecture.plain:
        config["pretrained_cfg"] = resnets.timm_preprocessing(resize, crop, mean=mean, std=std, resample=resample)
    norm: Any = (tuple(mean), tuple(std))
    return {
        "config.json": config,
        PREPROCESSING: to_settings(Preprocessing(resize, (crop, crop), resample, *norm)),
    }


def _in_format(architecture: Architecture, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    named = resnets.to_transformers(weights) if architecture.plain else dict(weights)
    return {name: value.contiguous() for name, value in named.items()}


def _write(folder: Path, files: Mapping[str, Any], weights: Mapping[str, torch.Tensor] | None) -> None:
    from safetensors.torch import save_file

    for name, content in files.items():
        _write_json(folder / name, content)
    if weights is not None:
        save_file(dict(weights), folder / WEIGHTS, {"format": "pt"})


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _root() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "nlp_finetune" / f"resnets-{_VERSION}"


def is_converted(folder: Path) -> bool:
    """Whether a checkpoint's folder was made here, so that nobody else finds it."""
    return folder.parent == _root()


def _key(content: Any) -> str:
    return hashlib.sha256(json.dumps([_VERSION, content], sort_keys=True).encode()).hexdigest()[:16]


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """Folder of that name in the cache; made whole under another name first, also by several processes at once."""
    root = _root()
    folder = root / name
    if folder.is_dir():
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    except OSError as error:
        raise InputError(f"the cache can't be written ({error}). Set HF_HOME to another folder.") from error
    try:
        make(partial)
        partial.chmod(0o755)
        os.replace(partial, folder)
    except OSError:
        if not folder.is_dir():  # else another process was quicker
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
