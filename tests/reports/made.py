"""Run folders of any size made from random numbers by the package's own functions: nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from nlp_finetune.metrics import classification, details
from nlp_finetune.reports import evidence
from nlp_finetune.runs.folder import RunFolder, write_json

HOSTILE = (
    "<script>document.title='owned'</script>",
    "a|b",
    "`tick` ${x} {{ 7*7 }}",
    "\u202eright to left\u202c",
    "شحن متأخر",
    "退款还没有到账",
    "</td></table><img src=x onerror=alert(1)>",
    "card \x00 lost",
)
"""Names of classes, and texts, that try to be more than text."""


def make_run(
    path: Path, *, classes: int = 5, rows: int = 400, seed: int = 0, data_seed: int = 0, skill: float = 3.0,
    names: list[str] | None = None, state: str = "finished", steps: int = 300, learning_rate: float = 5e-5,
) -> RunFolder:  # fmt: skip
    """A run of text classification: `skill` is how far the right class stands out, `data_seed` draws the rows."""
    folder = RunFolder(path)
    folder.create()
    labels_of = names or [f"intent {i:02}" for i in range(classes)]
    data, random = np.random.default_rng(data_seed), np.random.default_rng(seed)
    labels = data.integers(0, len(labels_of), size=rows)
    keys = [f"{data_seed}-{i}" for i in range(rows)]
    lengths = data.integers(4, 60, size=rows)
    logits = random.normal(size=(rows, len(labels_of)))
    logits[np.arange(rows), labels] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = classification.single_label(probabilities, labels)
    right = details.row_scores("accuracy", probabilities.argmax(axis=1) == labels)

    def text(position: int) -> str:
        return HOSTILE[position % len(HOSTILE)] + " " + f"row {position} of a customer's question, " * 3

    found = {
        "rows": rows,
        **details.single_label(probabilities, labels, labels_of, text=text, rows=range(1, rows + 1)),
        "row_score": {"name": "accuracy", "greater_is_better": True},
        "by_length": details.by_length(right, lengths.tolist()),
    }
    train = {"rows": 300, "of": 900, "suspects_by": "confidence", "suspects": found["mistakes"][:4]}
    measured = {
        "loss": 0.5,
        "rows": rows,
        **scores,
        "accuracy_ci95": [scores["accuracy"] - 0.02, scores["accuracy"] + 0.02],
    }
    history = _history(steps, scores["accuracy"], random, learning_rate)
    best = max((line for line in history if "validation" in line), key=lambda line: line["validation"]["accuracy"])
    if state == "finished":
        evidence.write_details(folder, {"validation": found, "test": found, "train": train})
        write_json(
            folder.metrics,
            {
                "best": {"step": best["step"], "epoch": 2.0, "metric": "accuracy", "value": scores["accuracy"]},
                "validation": measured, "test": measured,
                "baselines": {"test": {"majority": {"accuracy": 0.2}, "tfidf": {"accuracy": 0.6}}},
                "train": {
                    "samples_per_second": 21.3, "padding_fraction": 0.12, "peak_memory_mb": 1433.0, "seconds": 412.0,
                    "steps": steps, "trainable_parameters": 22_713_987, "total_parameters": 22_713_987,
                    "engine": "trainer", "precision": "fp32", "time_split": _time_split(),
                },
            },
        )  # fmt: skip
        folder.predictions.mkdir(exist_ok=True)
        lines = [
            {"key": keys[i], "row": i + 1, "score": right.values[i], "weight": 1.0, "text": text(i)[:160],
             "prediction": {"label": labels_of[probabilities[i].argmax()], "score": float(probabilities[i].max())}}
            for i in range(rows)
        ]  # fmt: skip
        (folder.predictions / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder.history.write_text("".join(json.dumps(line) + "\n" for line in history))
    write_json(folder.progress, _progress(steps, best["step"], len(labels_of)))
    write_json(folder.check, _check(labels_of, labels, rows))
    write_json(
        folder.environment,
        {
            "python": "3.11.7",
            "packages": {"torch": "2.13.0"},
            "cores": 2,
            "devices": [],
            "platform": "Linux",
            "processor": "x86_64",
            "command": ["run.py", "--recipe", "x y"],
        },
    )
    folder.set_status(state, exit_code=0 if state == "finished" else None, reason="", step=steps)
    folder.recipe.write_text(
        f"name: intents  # {HOSTILE[0]}\ntask: {{name: text_classification}}\nmodel: {{checkpoint: some/bert}}\n"
        f"data: {{source: intents.csv}}\noptim: {{learning_rate: {learning_rate}}}\n"
    )
    return folder


def _history(steps: int, final: float, random: Any, learning_rate: float) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(5, steps + 1, 5):
        done = step / steps
        lines.append({
            "step": step, "epoch": 3 * done, "loss": 2 * np.exp(-4 * done) + 0.3 + 0.05 * random.normal(),
            "grad_norm": 1 + random.random(), "learning_rate": learning_rate * min(10 * done, 1 - done),
            "health": {
                "gradients": {f"bert.encoder.layer.{i}": 0.1 * (i + 1) for i in range(12)},
                "updates": {f"bert.encoder.layer.{i}": 1e-3 for i in range(12)},
                "head": {"input_std": 0.5, "output_std": 1 + done},
            },
        })  # fmt: skip
        if step % (steps // 10) == 0:
            score = final * (1 - np.exp(-6 * done)) + 0.005 * random.normal()
            validation = {"loss": 1.8 * np.exp(-3 * done) + 0.5, "accuracy": score, "macro_f1": score - 0.01}
            lines.append({"step": step, "epoch": 3 * done, "validation": validation})
    return lines


def _time_split() -> dict[str, float]:
    return {"data": 3.1, "forward": 140.2, "backward": 231.0, "optimizer": 37.7, "evaluation": 41.0, "saving": 9.4}


def _progress(steps: int, best: int, classes: int) -> dict[str, Any]:
    sizes = {"bert.embeddings": 11_920_512, "bert.encoder.layer.0": 1_774_464, "bert.encoder.layer.1": 1_774_464,
             "bert.pooler": 147_840, "classifier": 385 * classes}  # fmt: skip

    def groups(trained: int) -> list[dict[str, Any]]:
        names = list(sizes)
        return [
            {"name": n, "kind": "block", "parameters": sizes[n], "trainable": float(i >= len(names) - trained)}
            for i, n in enumerate(names)
        ]

    return {
        "step": steps, "steps": steps, "best_step": best, "metric": "accuracy", "greater_is_better": True,
        "time_split": _time_split(),
        "trained": [{"step": 0, "groups": groups(2)}, {"step": steps // 3, "groups": groups(3)},
                    {"step": 2 * steps // 3, "groups": groups(4)}],
    }  # fmt: skip


def _check(names: list[str], labels: np.ndarray, rows: int) -> dict[str, Any]:
    counts = {name: int((labels == i).sum()) for i, name in enumerate(names)}
    lengths = {
        "percentiles": {"50": 31, "95": 55},
        "longest": 59,
        "summary": "no row is cut at 128: the longest has 59 tokens",
    }
    return {
        "splits": {"train": 900, "validation": rows, "test": rows},
        "origins": dict.fromkeys(("train", "validation", "test"), f"intents {HOSTILE[0]}.csv"),
        "labels": dict.fromkeys(("train", "validation", "test"), counts),
        "lengths": dict.fromkeys(("train", "validation", "test"), lengths),
        "findings": [
            {"level": "note", "code": "length", "message": "validation: 3 rows are longer than 50 tokens"},
            {"level": "warning", "code": "leakage", "message": f"3 test texts are in train too: {HOSTILE[6]}"},
        ],
    }  # fmt: skip
