"""The YAML header of a card: what the Hub indexes, with a valid `model-index`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.runs.card.escaping import plain
from nlp_finetune.runs.card.facts import SPLITS, Facts

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

_OURS = ("model-index", "library_name", "base_model", "base_model_relation", "pipeline_tag")
"""Fields that are measured or decide how the model is loaded: a user's text does not overrule them."""


def metadata(facts: Facts, *, name: str, own: dict[str, Any]) -> str:
    """The header as YAML, without its fences; `own` are the fields of the user's own text.

    Raises `InputError` for fields of the user's that the Hub's client refuses.
    """
    from huggingface_hub import ModelCardData

    results = list(_results(facts))
    base, data = facts.base, facts.data
    on_hub = base["kind"] == "hub"
    found: dict[str, Any] = {
        "base_model": plain(base["given"]) if on_hub else None,
        "base_model_relation": ("adapter" if facts.is_adapter else "finetune") if on_hub else None,
        "datasets": [plain(data["given"]).partition(":")[0]] if data["kind"] == "hub" else None,
        "language": data.get("language") or _single(base.get("language")),
        "license": _single(base.get("licence")),
        "library_name": _library(facts),
        "pipeline_tag": facts.pipeline,
        "tags": ["nlp-finetune", *(["custom_code"] if facts.brings_code else [])],
        "metrics": sorted({result.metric_type for result in results}) or None,
        "model_name": plain(name),
        "eval_results": results or None,
    }
    tags = own.pop("tags", None)
    if isinstance(tags, list):
        found["tags"] = list(dict.fromkeys([*found["tags"], *tags]))
    found.update({key: value for key, value in own.items() if key not in _OURS})
    if not results:
        del found["model_name"]
    try:
        made: ModelCardData = ModelCardData(**found)
        return str(made.to_yaml()).strip()
    except (TypeError, ValueError) as error:
        raise InputError(f"hub.card: the fields in its header are not those of a model card ({error}).") from error


def _library(facts: Facts) -> str:
    """What loads the model's files as they are."""
    if facts.is_timm:
        return "timm"
    if facts.is_adapter:
        return "peft"
    return "sentence-transformers" if facts.pooling else "transformers"


def _single(value: Any) -> str | None:
    """A value that stands alone: one of several says nothing about this model."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return plain(value) if isinstance(value, str) and value else None


def _results(facts: Facts) -> Iterator[EvalResult]:
    """Every finite score of every split; none for a model that the Hub has no name for."""
    from huggingface_hub import EvalResult

    data, pipeline = facts.data, facts.pipeline
    if pipeline is None:
        return
    is_public = data["kind"] == "hub"
    given = plain(data["given"]).partition(":")[0] if is_public else f"{plain(facts.recipe.get('name', 'own'))} data"
    for split in SPLITS:
        for metric, value in facts.scores(split):
            yield EvalResult(
                task_type=pipeline,
                dataset_type=given if is_public else "custom",
                dataset_name=given,
                dataset_config=facts.section("data").get("config") if is_public else None,
                dataset_split=_public_split(facts, split) if is_public else split,
                dataset_revision=data.get("revision") if is_public else None,
                metric_type=plain(metric),
                metric_name=plain(metric),
                metric_value=float(value),
            )


def _public_split(facts: Facts, split: str) -> str:
    """The data set's own name of a split."""
    if str((facts.check.get("origins") or {}).get(split, "")).startswith("held out"):
        return f"{plain(facts.section('data').get('train') or 'train')} (held-out rows)"
    return plain(facts.section("data").get(split) or split)
