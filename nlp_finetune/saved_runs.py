"""A finished RUN, in a folder or on the Hub, as a model that is ready to predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.inference import MOST_WORKERS, Model
from nlp_finetune.runs.folder import TASK_FILE, RunFolder, read_json, write_json
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.tasks import base

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Run:
    """A finished run on disk: what `load` needs to know before it loads weights.

    `weights` is the folder of the model's files: `model/` in a run folder, the root of a pushed run.
    """

    folder: RunFolder
    weights: Path
    task_name: str
    task_options: dict[str, Any]
    facts: dict[str, Any]
    metric: str | None
    trust_remote_code: bool = False


def find(run: str, *, trust_remote_code: bool = False) -> Run:
    """A run by its folder or its id on the Hub (OWNER/NAME, OWNER/NAME@REVISION), which is fetched.

    `trust_remote_code` is whether Python code that comes with it may be run, whatever its recipe says.
    Raises `InputError` where there is no finished run, `NlpFinetuneError` where fetching it fails.
    """
    import yaml

    from nlp_finetune.runs.pulling import locate

    found = locate(run, code=trust_remote_code, say=say)
    folder, weights = found.folder, found.weights
    try:
        recipe = yaml.safe_load(folder.recipe.read_text(encoding="utf-8"))
        saved = read_json(weights / TASK_FILE)
        return Run(
            folder,
            weights,
            saved["task"],
            recipe["task"],
            saved["facts"],
            recipe["train"].get("metric"),
            trust_remote_code,
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{run}: its recipe.yaml or {TASK_FILE} is damaged ({error}).") from error


def takes_images(run: Run) -> bool:
    """Whether what the run predicts from are images."""
    return base.find(run.task_name).images


def load(run: Run, runtime: Runtime, *, batch_size: int = 64, precision: str = "fp32") -> Model:
    """Task, model and processor of a finished run, which computes in `precision`, `fp32` or `bf16`.

    Raises `InputError` where its files are damaged, or the device has no bf16.
    """
    task_class = base.find(run.task_name)
    task = task_class(task_class.Options(**run.task_options))
    task.restore(run.facts)
    model = load_weights(task, run.weights, runtime, trust_remote_code=run.trust_remote_code, precision=precision)
    if precision == "bf16":
        _compute_in_bf16(model, runtime)
    workers = min(MOST_WORKERS, runtime.cores) if task.images else 0
    return Model(task, model, task.saved_processor(run.weights), runtime, batch_size, workers)


def _compute_in_bf16(model: torch.nn.Module, runtime: Runtime) -> None:
    import torch

    from nlp_finetune.models.computing import in_bf16

    if runtime.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("--precision bf16: this GPU does not support it. Leave it at fp32.")
    in_bf16(model, runtime.device)


def load_weights(
    task: base.BaseTask,
    folder: Path,
    runtime: Runtime,
    *,
    trust_remote_code: bool = False,
    precision: str = "fp32",
) -> torch.nn.Module:
    """A saved model of the task, from safetensors, in fp32, on this process's device.

    Convolutions have the layout that is faster for `precision`, in which the model is to compute.

    An adapter is merged into its base, which is fetched from the Hub where it is not in the cache.
    Raises `InputError` where files are damaged or the base can't be had.
    """
    from nlp_finetune.models import adapted, layout, loading

    if adapted.is_saved_in(folder):
        model: torch.nn.Module = adapted.load_merged(folder, auto_class=task.auto_class, say=say)
    else:
        model = loading.load_saved_model(folder, auto_class=task.auto_class, trust_remote_code=trust_remote_code)
    if task.images and layout.has_convolutions(model):
        layout.arrange(model, channels_last=layout.pays(runtime.device, precision))
    return model.to(runtime.device)


def save_merged(run: Run, target: Path, runtime: Runtime) -> Path:
    """Write a run whose weights are an adapter as a whole model, for `push --merge`; give the folder."""
    loaded = load(run, runtime)
    loaded.model.save_pretrained(target)  # type: ignore[operator]
    loaded.processor.save_pretrained(target)
    write_json(target / TASK_FILE, read_json(run.weights / TASK_FILE))
    return target
