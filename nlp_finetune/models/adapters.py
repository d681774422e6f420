"""Adapters (peft): put into a model, saved beside what is trained whole, loaded again, merged into the weights.

peft's own model classes are not used while training: the one for question answering, for one, drops
`token_type_ids`. The generic class passes every input on, and so does the merged model.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError, NlpFinetuneError
from nlp_finetune.models import base_weights, resnet_files
from nlp_finetune.models import targets as layers
from nlp_finetune.models.checkpoint import Checkpoint
from nlp_finetune.models.heads import shorten
from nlp_finetune.models.hub import local_folder
from nlp_finetune.models.loading import new_parameters
from nlp_finetune.models.summary import count_parameters

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
BASE_CONFIG = "base_config"
"""Folder inside an adapter's with its base's configuration, label names too; beside it, it would pass for a model's."""
_TASK_TYPES = {
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
}
"""peft's name for what a model does, where the class it then takes passes all inputs on."""
_LINEAR_ONLY = ("pissa", "vera")
_CASTS_NOTHING = ("lora", "rslora", "pissa")
"""Methods whose products autocast brings to one type anyway: peft's own cast of all inputs to fp32 is left out."""


@dataclass(frozen=True)
class Base:
    """The model under an adapter, as its `adapter_config.json` names it: a Hub id and commit, or an absolute folder.

    `unsaved` is a base that is on no disk yet; `export` saves it where `name` says. `digest` is that of the
    checkpoint's weights where they are on disk and might change; a commit on the Hub never does.
    """

    name: str
    revision: str | None = None
    unsaved: PreTrainedModel | None = field(default=None, compare=False)
    digest: str | None = None


def find_base(checkpoint: Checkpoint, model: PreTrainedModel, *, keep: Path) -> Base:
    """How others find the base of an adapter; one from scratch, or converted, goes to the folder `keep`."""
    if checkpoint.kind == "scratch" or resnet_files.is_converted(local_folder(checkpoint, weights=False)):
        found = base_weights.digest(Path(checkpoint.location)) if checkpoint.kind == "file" else None
        return Base(str(keep.resolve()), unsaved=copy.deepcopy(model), digest=found)
    if checkpoint.kind == "hub":
        # The folder of a Hub checkpoint is called like its commit.
        return Base(checkpoint.location, local_folder(checkpoint, weights=False).name)
    return Base(checkpoint.location, digest=base_weights.digest(Path(checkpoint.location)))


def add(
    model: PreTrainedModel,
    *,
    method: str,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[str] | str,
    rank_pattern: Mapping[str, int],
    auto_class: str,
    seed: int,
    base: Base,
    say: Callable[[str], None],
) -> PeftModel:
    """Freeze a model and put adapters into it; the head and what else is new is trained whole.

    The model is changed in place; `base` goes into the saved configuration. Raises `InputError` for
    targets or rank patterns that match nothing and for layers that the method can't adapt.
    """
    import torch
    from peft import PeftModel

    whole = layers.trained_whole(model, new_parameters(model))
    if isinstance(targets, str):
        names = layers.automatic(model, whole=whole)
    else:
        names = layers.chosen(model, targets, whole=whole)
    parts = {name: model.get_submodule(name) for name in names}
    _check_layers(parts, method=method, rank=rank)
    layers.check_ranks(rank_pattern, names)
    config = _config(
        model, parts, method=method, rank=rank, alpha=alpha, dropout=dropout, rank_pattern=rank_pattern, seed=seed
    )
    config.task_type = _TASK_TYPES.get(auto_class)
    config.modules_to_save = whole or None
    config.base_model_name_or_path, config.revision = base.name, base.revision
    on_meta = next(model.parameters()).is_meta
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.default_generator.manual_seed(seed)
        # peft asks transformers for a property by its former name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        adapted = PeftModel(model, config, low_cpu_mem_usage=on_meta)
    _check_wrapped(adapted, whole)
    adapted.base = base
    if method in _CASTS_NOTHING:
        for layer in adapted.modules():
            if hasattr(layer, "cast_input_dtype_enabled"):
                layer.cast_input_dtype_enabled = False
    if method == "pissa" and not on_meta:
        adapted.initial = {name: tensor.detach().cpu().clone() for name, tensor in _state(adapted).items()}
    say(_describe(adapted, names, whole, method=method, rank=None if method == "ia3" else rank))
    return adapted


def _check_layers(parts: Mapping[str, Any], *, method: str, rank: int) -> None:
    from torch import nn

    if not parts:
        raise InputError("lora.targets auto: no layer of this model can have an adapter. Use lora=null.")
    for name, part in parts.items():
        if not isinstance(part, nn.Conv2d):
            continue
        if method in _LINEAR_ONLY:
            raise InputError(f"lora.method {method} adapts linear layers only, and {name} is a convolution. Use lora.")
        if part.groups > 1 and method != "ia3" and rank % part.groups:
            raise InputError(f"lora.rank {rank}: {name} has {part.groups} groups, so the rank must be a multiple.")
    smallest = min(min(part.weight.shape[:2]) for part in parts.values())
    if method == "pissa" and rank > smallest:
        raise InputError(f"lora.rank {rank}: pissa takes it from the weights, whose smallest side here is {smallest}.")


def _config(
    model: PreTrainedModel,
    parts: Mapping[str, Any],
    *,
    method: str,
    rank: int,
    alpha: float,
    dropout: float,
    rank_pattern: Mapping[str, int],
    seed: int,
) -> PeftConfig:
    import peft
    from transformers.pytorch_utils import Conv1D

    where: dict[str, Any] = {
        "target_modules": layers.as_pattern(list(parts), model),
        # GPT-2 keeps its matrices transposed.
        "fan_in_fan_out": any(isinstance(part, Conv1D) for part in parts.values()),
    }
    if method == "ia3":
        narrowing = [name for name, part in parts.items() if _narrows(part)]
        # Where a layer narrows (the second of a feed-forward pair), its inputs are scaled, elsewhere outputs.
        inputs = layers.as_pattern(narrowing, model) if narrowing else []
        return peft.IA3Config(**where, feedforward_modules=inputs)
    if method == "vera":
        return peft.VeraConfig(**where, r=rank, vera_dropout=dropout, projection_prng_key=seed)
    return peft.LoraConfig(
        **where,
        r=rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        lora_dropout=dropout,
        rank_pattern=dict(rank_pattern),
        use_dora=method == "dora",
        use_rslora=method == "rslora",
        init_lora_weights="pissa" if method == "pissa" and not next(model.parameters()).is_meta else True,
    )


def _narrows(part: Any) -> bool:
    from transformers.pytorch_utils import Conv1D

    rows, columns = part.weight.shape[:2]
    return bool(rows > columns if isinstance(part, Conv1D) else columns > rows)


def _check_wrapped(adapted: PeftModel, whole: Sequence[str]) -> None:
    """peft finds modules by the ends of their names: make sure that it took those that were meant."""
    from peft.utils import ModulesToSaveWrapper

    found = {name for name, part in adapted.get_base_model().named_modules() if isinstance(part, ModulesToSaveWrapper)}
    if found != set(whole):
        raise NlpFinetuneError(f"peft trains {sorted(found ^ set(whole))[:3]} whole, or not, against the plan")


def _describe(adapted: PeftModel, names: Sequence[str], whole: Sequence[str], *, method: str, rank: int | None) -> str:
    from torch.nn.modules.batchnorm import _BatchNorm

    total, trained = count_parameters(adapted)
    kinds = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
    size = f" rank {rank}" if rank is not None else ""
    wrapped = {name: adapted.get_base_model().get_submodule(name).original_module for name in whole}
    shown = [name for name, part in wrapped.items() if not isinstance(part, _BatchNorm)]
    shown += [f"{len(whole) - len(shown)} x BatchNorm"] if len(whole) > len(shown) else []
    rest = f"; trained whole: {shorten(shown)}" if shown else ""
    return (
        f"{method}{size} on {len(names)} layers ({shorten(kinds, 8)}){rest}; "
        f"{trained:,} of {total:,} parameters trained ({trained / total:.2%})"
    )


def is_adapted(model: nn.Module) -> bool:
    """Whether `add` has been here."""
    return type(model).__module__.startswith("peft.")


def digest_of_base(model: Any) -> str | None:
    """Digest of the weights under an adapter where they are on disk; None for a model without one."""
    return model.base.digest if is_adapted(model) else None


def save(adapted: PeftModel, folder: Path) -> None:
    """Write adapter and what is trained whole, as they are now, so that `load` and peft can read them."""
    _write(adapted, adapted.peft_config["default"], _state(adapted), folder)


def load(adapted: PeftModel, folder: Path) -> None:
    """Take over what `save` wrote; raises `NlpFinetuneError` where it is not from this model."""
    from safetensors.torch import load_file

    put(adapted, load_file(folder / WEIGHTS), given=folder)


def put(adapted: PeftModel, saved: Mapping[str, torch.Tensor], *, given: Path | str) -> None:
    """Take over the weights of an adapter like this one; `given` is where they are from, for messages."""
    from peft import set_peft_model_state_dict

    differing = sorted(saved.keys() ^ _state(adapted).keys())
    if differing:
        raise NlpFinetuneError(f"adapter {given} does not fit this model: {shorten(differing, 3)}")
    set_peft_model_state_dict(adapted, dict(saved))


def export(adapted: PeftModel, folder: Path) -> None:
    """Write an adapter for others: its weights and configuration, and the base's configuration beside them.

    PiSSA has taken its start out of the frozen weights. What it learned is written as a LoRA of twice
    the rank, which fits the weights as they were.
    """
    config, state = adapted.peft_config["default"], _state(adapted)
    initial: dict[str, torch.Tensor] | None = getattr(adapted, "initial", None)
    if initial is not None:
        config, state = _as_lora(config, state, initial)
    _write(adapted, config, state, folder)
    model = adapted.get_base_model()
    # What the checkpoint was made as (a bare backbone, say) is not what this model is.
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder / BASE_CONFIG)
    if model.can_generate():  # in the way that was set for this task, not the base's own
        model.generation_config.save_pretrained(folder)
    if adapted.base.unsaved is not None:
        adapted.base.unsaved.save_pretrained(adapted.base.name)
        base_weights.write(folder / BASE_CONFIG, base_weights.digest(Path(adapted.base.name)))
    else:
        base_weights.write(folder / BASE_CONFIG, adapted.base.digest)


def merge(adapted: PeftModel) -> PreTrainedModel:
    """The model with its adapters worked into the weights; the adapted one is used up by it.

    peft's own way breaks for some methods where a module without a `weight` is trained whole.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    model: PreTrainedModel = adapted.get_base_model()
    for name, part in list(model.named_modules()):
        if isinstance(part, ModulesToSaveWrapper):
            done = part.modules_to_save["default"]
        elif isinstance(part, BaseTunerLayer):
            part.merge(safe_merge=True)
            done = part.get_base_layer()
        else:
            continue
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, done)
    return model


def _state(adapted: PeftModel) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    state: dict[str, torch.Tensor] = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return state


def _as_lora(
    config: PeftConfig, state: Mapping[str, torch.Tensor], initial: Mapping[str, torch.Tensor]
) -> tuple[PeftConfig, dict[str, torch.Tensor]]:
    """B A - B0 A0 as one product: the factors side by side, the start with its sign turned."""
    import torch

    joined = dict(state)
    for name, start in initial.items():
        if ".lora_A." in name:
            joined[name] = torch.cat([state[name].cpu(), start], dim=0)
        elif ".lora_B." in name:
            joined[name] = torch.cat([state[name].cpu(), -start], dim=1)
    plain: Any = copy.deepcopy(config)
    plain.init_lora_weights = True
    plain.r, plain.lora_alpha = 2 * plain.r, 2 * plain.lora_alpha
    plain.rank_pattern = {name: 2 * rank for name, rank in plain.rank_pattern.items()}
    return plain, joined


def _write(adapted: PeftModel, config: PeftConfig, state: Mapping[str, torch.Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS, {"format": "pt"})
    config = copy.deepcopy(config)
    config.inference_mode = True
    kind = type(adapted.get_base_model())
    mapping = {"base_model_class": kind.__name__, "parent_library": kind.__module__}
    config.save_pretrained(str(folder), auto_mapping_dict=None if config.task_type else mapping)
