"""The processes of `speed.py`: a run of this package, or transformers.Trainer as run_glue.py's best flags drive it.

A worker reads a number from its orders, takes as many optimizer steps, and answers with what they were.
"""

from __future__ import annotations

import csv
import ctypes
import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import nlp_finetune.torchvision_guard  # noqa: E402, F401  before the first import of transformers

STEPS = 1_000_000
"""More than any benchmark takes."""


class Gate:
    """Counts what goes through the model, and lets training go on when it is told to."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.orders, self.answers = os.fdopen(about["orders"]), os.fdopen(about["answers"], "w")
        self.left = self.steps = 0
        self.lengths: list[Any] = []
        self.work: list[float] = []
        self.seconds = self.cpu = 0.0
        self.faults = 0

    def watch(self, model: Any) -> None:
        """Count rows and tokens that a model is given."""

        def count(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
            # Read when the turn is over: nothing here may wait for a GPU.
            self.lengths.append(inputs["attention_mask"].sum(-1))

        model.register_forward_pre_hook(count, with_kwargs=True)

    def callback(self) -> Any:
        """A callback that closes the gate after the steps that were ordered."""
        from transformers import TrainerCallback

        gate = self

        class Closing(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, *args: Any, **others: Any) -> None:
                gate.answer({"work": gate.work})
                gate.wait()

            def on_step_end(self, *args: Any, **others: Any) -> None:
                gate.left -= 1
                if gate.left == 0:
                    on_gpu = _settled()
                    seconds, cpu = time.perf_counter() - gate.seconds, time.process_time() - gate.cpu
                    used = resource.getrusage(resource.RUSAGE_SELF)
                    gate.answer(
                        {
                            "steps": gate.steps, "seconds": seconds, "cpu": cpu, **gate.counted(),
                            "peak_mb": on_gpu or used.ru_maxrss / 1024, "faults": used.ru_minflt - gate.faults,
                        }
                    )  # fmt: skip
                    gate.wait()

        return Closing()

    def counted(self) -> dict[str, int]:
        """Rows, tokens and squares of lengths of this turn."""
        found = [n for lengths in self.lengths for n in lengths.tolist()]
        return {"rows": len(found), "tokens": sum(found), "squares": sum(n * n for n in found)}

    def answer(self, content: dict[str, float]) -> None:
        self.answers.write(json.dumps(content) + "\n")
        self.answers.flush()

    def wait(self) -> None:
        """Until the next order comes; the process ends where there will be none."""
        line = self.orders.readline()
        if not line:
            os._exit(0)
        self.left = self.steps = int(line)
        self.lengths = []
        self.faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self.seconds, self.cpu = time.perf_counter(), time.process_time()


def _settled() -> float | None:
    """Wait for the GPU; gives the most MB of it that were in use, None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20


def main() -> None:
    about = json.loads(sys.argv[1])
    gate = Gate(about)
    (rival if isinstance(about["train"], str) else ours)(about, gate)


def ours(about: dict[str, Any], gate: Gate) -> None:
    """A run of this package, all of its callbacks included."""
    from nlp_finetune import allocator, metering
    from nlp_finetune.engines.hf_trainer import fit
    from nlp_finetune.models.packing import base_of

    if not about["keeps_memory"]:
        allocator.keep_freed_memory = lambda: "not in this variant"
    text, label = about["columns"]
    settings = {
        "model.checkpoint": about["checkpoint"], "data.train": about["data"], "task.text": f"[{text}]",
        "task.label": label, "task.max_length": about["max_length"], "optim.learning_rate": "5e-5",
        "optim.warmup": 0, "optim.weight_decay": 0, "train.batch_size": 32, "train.max_steps": STEPS,
        "train.eval_every": STEPS, "train.save_every": STEPS, "train.precision": "bf16",
        **({} if about["header"] else {"data.columns": f"[{text},{label}]"}),
        **{name if "." in name else f"train.{name}": value for name, value in about["train"].items()},
    }  # fmt: skip
    if about.get("counts_work"):
        metering.peak = lambda runtime, precision: 1.0  # any: then operations are counted, whatever the device
    built = built_run("text_cls", settings, about["folder"])
    gate.work = [] if built.work is None else list(built.work.coefficients)
    gate.watch(base_of(built.job.model))
    built.job.callbacks.append(gate.callback())
    fit(built.job)


def built_run(recipe_name: str, settings: Mapping[str, Any], folder: str) -> Any:
    """What `train` would fit of a recipe with these settings, in this process, with its share of the machine."""
    from nlp_finetune import joining, runtime
    from nlp_finetune.build import build
    from nlp_finetune.preparation import prepare
    from nlp_finetune.recipe import load
    from nlp_finetune.runs.folder import RunFolder
    from nlp_finetune.stopping import StopRequest
    from nlp_finetune.tasks import base

    overrides = [f"{name}={value}" for name, value in settings.items()]
    recipe = load(recipe_name, overrides=overrides, task_options=base.options_of, task_names=base.names()).recipe
    runtime.set_up_log()
    here = joining.start(threads=threads())
    runtime.set_seed(recipe.train.seed)
    made = RunFolder(folder)
    made.create()
    return build(prepare(recipe, here), made, here, StopRequest(), about={})


def rival(about: dict[str, Any], gate: Gate) -> None:
    """run_glue.py --pad_to_max_length False --train_sampling_strategy group_by_length --bf16; or as it comes."""
    tuned = about["train"] == "tuned"
    if tuned:
        keep_freed_memory()
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    from nlp_finetune.models.checkpoint import resolve
    from nlp_finetune.models.hub import local_folder

    torch.set_num_threads(threads())
    texts, labels = _rows(about)
    folder = local_folder(resolve(about["checkpoint"]), weights=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    form = tokenizer(texts, truncation=True, max_length=about["max_length"], padding=False if tuned else "max_length")
    encoded = Dataset.from_dict({**form, "labels": labels})
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(set(labels)))
    gate.watch(model.base_model)
    arguments = TrainingArguments(
        about["folder"], max_steps=STEPS, per_device_train_batch_size=32, learning_rate=5e-5, bf16=tuned,
        use_cpu=not torch.cuda.is_available(), train_sampling_strategy="group_by_length" if tuned else "random",
        logging_steps=500, save_strategy="no", report_to="none",
        disable_tqdm=True,
    )  # fmt: skip
    Trainer(
        model, arguments, train_dataset=encoded, processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer), callbacks=[gate.callback()],
    ).train()  # fmt: skip


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def _rows(about: dict[str, Any]) -> tuple[list[str], list[int]]:
    text, label = about["columns"]
    with open(about["data"], encoding="utf-8", newline="") as stream:
        names = None if about["header"] else [text, label]
        rows = list(csv.DictReader(stream, fieldnames=names, delimiter="\t", quoting=csv.QUOTE_NONE))
    classes = sorted({row[label] for row in rows})
    return [row[text] for row in rows], [classes.index(row[label]) for row in rows]


def keep_freed_memory() -> None:
    """What tcmalloc does for the best command line: memory that a step frees stays with the process (glibc)."""
    libc = ctypes.CDLL(None)
    for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 64 << 20)):  # M_MMAP_THRESHOLD, TRIM, TOP_PAD
        libc.mallopt(option, value)


if __name__ == "__main__":
    main()
