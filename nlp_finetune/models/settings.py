"""A model's configuration: read or made, edited by the user, dropout and activation found in it."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models import resnets
from nlp_finetune.models.checkpoint import did_you_mean, unknown_family
from nlp_finetune.models.quiet import quiet

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

SCRATCH_VOCABULARY = 8000
"""Most tokens of a vocabulary fitted on the training texts, unless `model.config.vocab_size` says more."""
OWN_HEAD = "encoder_with_head"
"""Model type of an encoder with a head of one's own (`models/encoder_with_head.py`)."""
_DECIDED_BY_DATA = {"num_labels", "id2label", "label2id", "problem_type"}
_DECIDED_ELSEWHERE = {"dtype": "train.precision", "torch_dtype": "train.precision"}
_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation", "ff_activation")
_NO_DROPOUT = ("layerdrop", "path")
"""Parts of field names that hold `drop` and mean whole layers, not single activations."""


def read_json(folder: Path) -> dict[str, Any]:
    """The `config.json` of a model folder as it stands; raises `InputError` if it is damaged."""
    file = folder / "config.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: can't be read as JSON ({error}).") from error
    if not isinstance(raw, dict):
        raise InputError(f"{file}: not the configuration of a model (no JSON object).")
    return raw


def make_config(
    raw: Mapping[str, Any], edits: Mapping[str, Any], *, given: str, code: Path | None = None
) -> PretrainedConfig:
    """Configuration of the family that `raw["model_type"]` names, with the user's edits.

    The edits go in before it is built, because configurations derive fields from others. `code` is the
    folder of a family that transformers has not, where its own code may be run. Raises `InputError` for an
    unknown family, key or value, and for code that may not be run.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = {**raw, **({"model_type": edits["model_type"]} if "model_type" not in raw and edits else {})}
    if not isinstance(values.get("model_type"), str):
        raise InputError(
            f"{given}: its config.json has no model_type. Say what it is, like model.config.model_type=bert"
        )
    if values["model_type"] == resnets.SMALL_STEM:
        from nlp_finetune.models import resnet_small_stem

        resnet_small_stem.register()
    elif values["model_type"] == OWN_HEAD:
        from nlp_finetune.models import encoder_with_head

        encoder_with_head.register()
    if values["model_type"] not in CONFIG_MAPPING:
        if "AutoConfig" in raw.get("auto_map", {}):
            return _foreign(raw, edits, given=given, code=code)
        raise InputError(f"{given}: {unknown_family(values['model_type'], CONFIG_MAPPING)}")
    if "quantization_config" in raw:
        raise InputError(f"{given}: quantized weights can't be fine-tuned. Give the unquantized checkpoint.")
    family = CONFIG_MAPPING[values["model_type"]]
    _check_keys(edits, family, raw)
    values.update({family.attribute_map.get(key, key): value for key, value in edits.items()})
    try:
        with quiet():
            config: PretrainedConfig = family.from_dict(values)
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        where = "model.config" if edits else "its config.json"
        raise InputError(f"{given}: {where} is not valid for {values['model_type']}: {_last_line(error)}") from error
    return config


def _foreign(raw: Mapping[str, Any], edits: Mapping[str, Any], *, given: str, code: Path | None) -> PretrainedConfig:
    """Configuration whose class comes with the checkpoint, where that may be run."""
    from transformers import AutoConfig

    if code is None:
        raise InputError(
            f"{given}: transformers has no model type {raw['model_type']!r}. Its own Python code would have to be run, "
            "which is off by default. Read it; if you trust it, set model.trust_remote_code=true to train, or give "
            "--trust-remote-code to predict and evaluate."
        )
    try:
        with quiet():
            found: PretrainedConfig = AutoConfig.from_pretrained(code, trust_remote_code=True, **edits)
    except Exception as error:
        # Somebody else's code: anything may come out of it.
        raise InputError(f"{given}: its own code can't make its configuration ({_last_line(error)}).") from error
    return found


def is_foreign(config: PretrainedConfig) -> bool:
    """Whether a configuration's class is code that came with its checkpoint, and was allowed to run."""
    return type(config).__module__.startswith("transformers_modules.")


def _check_keys(edits: Mapping[str, Any], family: Any, raw: Mapping[str, Any]) -> None:
    known = {name for name in {*family.__dataclass_fields__, *family.attribute_map, *raw} if name[0] != "_"}
    known = (known | {"attn_implementation"}) - _DECIDED_BY_DATA - set(_DECIDED_ELSEWHERE)
    problems = []
    for key in edits:
        if key in _DECIDED_BY_DATA:
            problems.append(f"model.config.{key}: the data and the task decide it, it can't be set")
        elif key in _DECIDED_ELSEWHERE:
            problems.append(f"model.config.{key}: weights are kept in fp32; use {_DECIDED_ELSEWHERE[key]}")
        elif key == "model_type" and raw.get("model_type", edits[key]) != edits[key]:
            problems.append(f"model.config.model_type: the checkpoint's is {raw['model_type']}")
        elif key not in known and not _reads(family, key):
            problems.append(f"model.config.{key}: {family.model_type} has no such setting.{did_you_mean(key, known)}")
    if problems:
        raise InputError("\n".join(problems))


def _reads(family: Any, key: str) -> bool:
    """Whether the family's code asks for a setting that its configuration class does not declare."""
    spec = importlib.util.find_spec(family.__module__.replace(".configuration_", ".modeling_"))
    if spec is None or spec.origin is None:
        return False
    code = Path(spec.origin).read_text(encoding="utf-8")
    return re.search(rf"""config(?:\.|, ["']){re.escape(key)}\b""", code) is not None


def apply_overrides(config: PretrainedConfig, overrides: Mapping[str, Any]) -> None:
    """Set what the task has decided; `num_labels` first, because setting it renames the labels."""
    for key in sorted(overrides, key=lambda name: name != "num_labels"):
        setattr(config, key, overrides[key])
    if "id2label" in overrides and hasattr(config, "label_names"):
        config.label_names = list(config.id2label.values())  # timm's wrapper holds them twice


def reads_both_ways(config: PretrainedConfig) -> bool:
    """Whether a model of this configuration sees what comes after a token, as BERT does."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)


def with_dropout(config: PretrainedConfig, probability: float) -> PretrainedConfig:
    """A copy of the configuration in which every dropout probability is `probability`."""
    changed = copy.deepcopy(config)
    for name, value in config.to_dict().items():
        if "drop" not in name or any(part in name for part in _NO_DROPOUT) or isinstance(value, bool):
            continue
        # A head's own dropout is None where it follows the backbone's.
        if isinstance(value, int | float) or (value is None and name.startswith("classifier")):
            setattr(changed, name, float(probability))
    return changed


def set_dropout(model: torch.nn.Module, probability: float) -> None:
    """Set the dropout modules too: some models build them from constants."""
    from torch.nn.modules.dropout import _DropoutNd

    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = probability


def with_activation(
    config: PretrainedConfig, activation: str, *, pretrained: bool, say: Callable[[str], None]
) -> PretrainedConfig:
    """A copy of the configuration whose backbone uses another activation function.

    Raises `InputError` for a name transformers does not know, and for a family that has no such field.
    """
    from transformers.activations import ACT2FN

    if activation not in ACT2FN:
        raise InputError(f"model.activation {activation}: no such function.{did_you_mean(activation, ACT2FN)}")
    fields = [name for name in _ACTIVATIONS if isinstance(getattr(config, name, None), str)]
    if not fields:
        raise InputError(f"model.activation: {config.model_type} can't change it by one name; leave it null.")
    changed = copy.deepcopy(config)
    for name in fields:
        before = getattr(config, name)
        setattr(changed, name, activation)
        if pretrained and before != activation:
            say(f"activation {activation} replaces {before}, which the checkpoint was trained with")
    return changed


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
