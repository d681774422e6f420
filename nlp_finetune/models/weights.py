"""Reading a folder's weights into a model, and refusing what would leave a backbone at random."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models.checkpoint import contents
from nlp_finetune.models.quiet import quiet
from nlp_finetune.models.settings import is_foreign

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

_TASK_CLASSES = (
    "AutoModelForSequenceClassification", "AutoModelForTokenClassification", "AutoModelForQuestionAnswering",
    "AutoModelForMultipleChoice", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSeq2SeqLM",
    "AutoModelForImageClassification",
)  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A model and which of its parameters did not come from the checkpoint.

    `absent` are parameters the checkpoint has not, `reshaped` those it has in another shape (a head
    with another number of labels), `unused` the checkpoint's tensors that the model has no place for.
    """

    model: PreTrainedModel
    absent: frozenset[str]
    reshaped: frozenset[str]
    unused: frozenset[str]

    @property
    def new(self) -> frozenset[str]:
        """Parameters that start anew."""
        return self.absent | self.reshaped


def auto(auto_class: str, config: PretrainedConfig) -> Any:
    """The transformers Auto class, if the configuration's family has such a model.

    Raises `InputError` that names the classes the family does have.
    """
    import transformers

    found = getattr(transformers, auto_class)
    if type(config) in found._model_mapping or auto_class in (getattr(config, "auto_map", None) or {}):
        return found
    has = [name for name in _TASK_CLASSES if type(config) in getattr(transformers, name)._model_mapping]
    raise InputError(
        f"model type {config.model_type} has no {auto_class}, which this task needs"
        + (f"; it has {', '.join(has)}." if has else ".")
    )


def load(folder: Path, *, auto_class: str, config: PretrainedConfig, given: str) -> Loaded:
    """Load a folder in fp32, from safetensors where there are any, running code from it only where its
    configuration is such code already (`settings.is_foreign`).

    Raises `InputError` for weights that are missing or damaged, and for a family without this head.
    """
    import torch
    from safetensors import SafetensorError

    builder = auto(auto_class, config)
    _refuse_pointers(folder, given)
    try:
        # What is drawn here is drawn again by seed; the global generator must not notice either.
        with quiet(), torch.random.fork_rng(devices=[]):
            model, info = builder.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                # A head of another size is replaced, and a backbone of another size refused, below.
                ignore_mismatched_sizes=True,
                trust_remote_code=is_foreign(config),
            )
    except (SafetensorError, EOFError) as error:
        raise InputError(f"{given}: its weights are damaged ({_first(error)}). Get the file again.") from error
    except OSError as error:
        lacks = "no weights (model.safetensors or pytorch_model.bin)"
        raise InputError(f"{given}: {lacks} could be read from it, {contents(folder)}. {_first(error)}") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"{given}: its pickled weights can't be read safely: {_first(error)}") from error
    except (ImportError, ValueError, TypeError, RuntimeError, LookupError) as error:
        raise InputError(f"{given}: can't be loaded as {config.model_type}: {_first(error)}") from error
    tied = set(getattr(model, "all_tied_weights_keys", {}))
    parameters = {name for name, _ in model.named_parameters()}
    return Loaded(
        model,
        absent=frozenset(set(info["missing_keys"]) & parameters - tied),
        reshaped=frozenset({key[0] for key in info["mismatched_keys"]} & parameters),
        unused=frozenset(info["unexpected_keys"]),
    )


def backbone_names(model: PreTrainedModel) -> set[str]:
    """Names of the parameters under the model's base; all of them where the model is its own base."""
    names = {name for name, _ in model.named_parameters()}
    if model.base_model is model:
        return names
    # timm's models hold their head themselves.
    head = getattr(model.base_model, "get_classifier", lambda: None)()
    inside = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    return {
        name
        for name, parameter in model.named_parameters()
        if name.startswith(f"{model.base_model_prefix}.") and id(parameter) not in inside
    }


def check_backbone(loaded: Loaded, *, given: str) -> None:
    """Refuse a model whose backbone the checkpoint does not fill; a missing pooler alone may start anew."""
    model = loaded.model
    backbone = backbone_names(model)
    lost = sorted(name for name in loaded.new & backbone if not _in_pooler(name))
    if not lost:
        return
    shapes = dict(model.named_parameters())
    examples = ", ".join(f"{name} {'x'.join(map(str, shapes[name].shape))}" for name in lost[:3])
    reason = f"Its config.json says model_type {model.config.model_type}"
    strangers = _top_names(loaded.unused)
    if loaded.reshaped & set(lost):
        reason = "The configuration (with model.config) and the weights disagree about sizes"
    elif strangers:
        reason += f", its weights are called {', '.join(strangers)}"
    raise InputError(
        f"{given}: {len(lost)} of {len(backbone)} backbone parameters are not in the checkpoint as the model "
        f"needs them, for example {examples}. {reason}. Training would start from random weights."
    )


def describe_unused(loaded: Loaded) -> str | None:
    """One line about tensors of the checkpoint that are not used; None where there are none."""
    if not loaded.unused:
        return None
    count = len(loaded.unused)
    tensors = "1 tensor" if count == 1 else f"{count} tensors"
    line = f"not used from the checkpoint: {', '.join(_top_names(loaded.unused))} ({tensors})"
    # A checkpoint of the bare backbone has the same names without the prefix.
    base = {loaded.model.base_model_prefix, *(name for name, _ in loaded.model.base_model.named_children())}
    inside = sorted(n for n in loaded.unused if n.split(".")[0] in base and not _in_pooler(n))
    if inside:
        # Dropped upper layers may be meant; a dropped embedding table changes what the model computes.
        line += f"; {len(inside)} of them belong to the backbone ({inside[0]}), which is not the same without"
    return line


def read_tensor(folder: Path, name: str) -> torch.Tensor | None:
    """One tensor of a folder's weights under exactly this name, in fp32; None if there is none."""
    import torch
    from safetensors import safe_open

    for whole in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{whole}.index.json"
        file = folder / whole
        if not file.is_file() and index.is_file():
            file = folder / json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(name, "")
        if not file.is_file():
            continue
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                return tensors.get_tensor(name).float() if name in tensors.keys() else None  # noqa: SIM118
        tensor = torch.load(file, map_location="cpu", weights_only=True, mmap=True).get(name)
        return None if tensor is None else tensor.float()
    return None


def _refuse_pointers(folder: Path, given: str) -> None:
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        with file.open("rb") as stream:
            if stream.read(24).startswith(b"version https://git-lfs"):
                raise InputError(f"{given}: {file.name} is a Git LFS pointer, not the weights. Run: git lfs pull")


def _in_pooler(name: str) -> bool:
    return any("pooler" in part for part in name.split("."))


def _top_names(names: Iterable[str]) -> list[str]:
    return [f"{top}.*" for top, _ in Counter(name.split(".")[0] for name in names).most_common(4)]


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
