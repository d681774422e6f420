"""A short model card from what a run folder holds, for runs that have no card of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.recipe.finding import FILE_ENDINGS
from nlp_finetune.runs.remote import is_repo_id

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_PIPELINES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForImageClassification": "image-classification",
}
"""Ends of transformers' class names, and the Hub's name for what such a model does."""
_WITHOUT_PIPELINE = ("question-answering",)
"""What transformers 5 has no pipeline for any more: such a card shows no usage that would fail."""
_SPLITS = ("validation", "test")


def short_card(
    repo_id: str,
    recipe: Mapping[str, Any],
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    adapter: bool,
) -> str:
    """Text of a card: metadata with a model-index, the table of metrics, and how to use the model.

    `recipe`, `metrics` and `config` are the contents of recipe.yaml, metrics.json and config.json.
    """
    from huggingface_hub import ModelCardData

    pipeline = _pipeline(config)
    checkpoint = str((recipe.get("model") or {}).get("checkpoint") or "")
    source = str((recipe.get("data") or {}).get("source") or "").partition(":")[0]
    is_public_data = _is_public(source) and not source.lower().endswith(FILE_ENDINGS)
    results = list(_results(recipe, metrics, pipeline, source if is_public_data else None))
    data = ModelCardData(
        base_model=checkpoint if _is_public(checkpoint) else None,
        datasets=[source] if is_public_data else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag=pipeline,
        tags=["nlp-finetune"],
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=repo_id.partition("/")[2],
        eval_results=results or None,
    )
    if not results:
        data.pop("model_name")
    return f"---\n{data.to_yaml()}\n---\n\n{_body(repo_id, recipe, metrics, pipeline, checkpoint)}"


def _is_public(name: str) -> bool:
    """Whether a name is that of a repository, and not of a file or folder."""
    return is_repo_id(name) and not Path(name).exists()


def _pipeline(config: Mapping[str, Any]) -> str | None:
    names = config.get("architectures") or [""]
    return next((tag for end, tag in _PIPELINES.items() if str(names[0]).endswith(end)), None)


def _scores(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, float, str]]:
    """Split, metric, value and interval of everything that was measured."""
    for split in _SPLITS:
        for name, value in (metrics.get(split) or {}).items():
            if isinstance(value, float) and math.isfinite(value) and name != "loss":
                low_high = metrics[split].get(f"{name}_ci95")
                yield split, name, value, f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high else ""


def _results(
    recipe: Mapping[str, Any], metrics: Mapping[str, Any], pipeline: str | None, dataset: str | None
) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    if pipeline is None:
        return
    for split, name, value, _ in _scores(metrics):
        yield EvalResult(
            task_type=pipeline,
            dataset_type=dataset or "custom",
            dataset_name=dataset or f"{recipe.get('name', 'own')} data",
            dataset_split=split,
            metric_type=name,
            metric_value=value,
        )


def _body(
    repo_id: str,
    recipe: Mapping[str, Any],
    metrics: Mapping[str, Any],
    pipeline: str | None,
    checkpoint: str,
) -> str:
    rows = "\n".join(
        f"| {split} | {name} | {value:.4f} | {interval} | {metrics[split].get('rows', '')} |"
        for split, name, value, interval in _scores(metrics)
    )
    lines = (
        [f'pipe = pipeline("{pipeline}", model="{repo_id}")'] if pipeline and pipeline not in _WITHOUT_PIPELINE else []
    )
    use = "\n".join(["```python", "from transformers import pipeline", "", *lines, "```", ""]) if lines else ""
    return f"""\
# {repo_id.partition("/")[2]}

`{_inline(checkpoint)}` fine-tuned with the recipe `{_inline(str(recipe.get("name", "")))}`, which is in
`recipe.yaml`. All scores are in `metrics.json`; they are those of the weights in this repository.

| split | metric | value | 95 % interval | rows |
|---|---|---|---|---|
{rows}

## Use

{use}
```bash
nlp-finetune predict {repo_id} --input FILE.csv --output predictions.csv
nlp-finetune train --recipe recipe.yaml
```
"""


def _inline(text: str) -> str:
    """Text that stays inside a code span and a line."""
    return " ".join(text.replace("`", "'").split())
