"""Facts of a made-up run that has everything a card can tell, for tests of cards."""

from __future__ import annotations

from typing import Any

from nlp_finetune.runs.card.facts import Facts

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def full(**changes: Any) -> Facts:
    """A text classifier with three classes, of a base and a data set on the Hub."""
    return Facts(**{**_FULL, **changes})


def with_labels(names: list[str], texts: list[str]) -> Facts:
    """The same with other names of classes, and these texts as their examples."""
    counts = dict.fromkeys(names, 10)
    classes = [{"label": name, "precision": 0.5, "recall": 0.4, "f1": 0.45, "rows": 10} for name in names]
    matrix = [[5 if i == j else 1 for j in range(len(names))] for i in range(len(names))]
    return full(
        config={**_FULL["config"], "id2label": {str(i): name for i, name in enumerate(names)}},
        check={
            **_FULL["check"],
            "labels": {"train": counts, "test": counts},
            "examples": dict(zip(names, texts, strict=True)),
        },
        details={"test": {"classes": classes, "confusion": {"labels": names, "matrix": matrix}}},
    )


_FULL: dict[str, Any] = {
    "recipe": {
        "name": "reviews", "description": "Sentiment of reviews",
        "task": {"name": "text_classification", "text": ["text"], "max_length": 64, "on_long": "truncate"},
        "model": {"checkpoint": "google-bert/bert-base-uncased"},
        "data": {"source": "owner/reviews", "train": "train", "validation": "validation", "test": "test"},
        "loss": {"name": "auto", "gamma": 2.0}, "optim": {"learning_rate": 2e-5},
        "train": {"seed": 13, "batch_size": 32, "epochs": 2.0, "precision": "auto"},
    },
    "metrics": {
        "best": {"step": 40, "epoch": 2.0, "metric": "accuracy", "value": 0.9},
        "test": {"loss": 0.3, "rows": 200, "accuracy": 0.875, "accuracy_ci95": [0.82, 0.92], "macro_f1": 0.86},
        "validation": {"loss": 0.2, "rows": 100, "accuracy": 0.9, "accuracy_ci95": [0.84, 0.95], "macro_f1": 0.89},
        "baselines": {"test": {"tfidf": {"accuracy": 0.6, "macro_f1": 0.59}, "majority": {"accuracy": 0.5}}},
        "train": {
            "seconds": 360.0, "steps": 40, "samples_per_second": 25.0, "peak_memory_mb": 900.0, "precision": "fp32",
            "total_parameters": 1000, "trainable_parameters": 10, "engine": "trainer",
        },
    },
    "config": {
        "architectures": ["BertForSequenceClassification"], "num_hidden_layers": 6, "hidden_size": 384,
        "problem_type": "single_label_classification",
        "id2label": {"0": "bad", "1": "good", "2": "so-so"},
    },
    "task": {"task": "text_classification", "facts": {}},
    "check": {
        "splits": {"train": 640, "validation": 100, "test": 200},
        "origins": {"train": "owner/reviews, split train", "validation": "held out of train", "test": "t.csv"},
        "labels": {"train": {"bad": 320, "good": 300, "so-so": 20}, "test": {"bad": 100, "good": 90, "so-so": 10}},
        "examples": {"bad": "Cold soup.", "good": "Warm soup.", "so-so": "Soup."},
        "example": ["Warm soup."],
        "lengths": {
            "train": {"percentiles": {"50": 20, "99": 70}, "longest": 90, "summary": "12.4 % of rows are cut at 64"},
        },
        "findings": [
            {"level": "note", "code": "lengths", "message": "a note"},
            {"level": "warning", "code": "leakage", "message": "test: 7 of 200 rows are also in train"},
        ],
    },
    "details": {
        "test": {
            "classes": [{"label": "so-so", "precision": 0.5, "recall": 0.3, "f1": 0.375, "rows": 10}],
            "confusion": {"labels": ["bad", "good", "so-so"], "matrix": [[90, 10, 0], [5, 84, 1], [3, 4, 3]]},
            "calibration": {
                "ece": 0.1234, "bins": [{"low": 0.9, "high": 1.0, "rows": 150, "confidence": 0.95, "accuracy": 0.83}],
            },
            "by_length": [{"low": 3, "high": 12, "rows": 100, "accuracy": 0.91}],
        }
    },
    "environment": {
        "python": "3.11.7", "packages": {"torch": "2.13.0", "transformers": "5.23.0"}, "platform": "Linux",
        "processor": "Some CPU", "cores": 4, "devices": [], "processes": 2,
        "command": ["run.py", "--recipe", "text_cls", "data.test=/home/me/secret/t.csv", "output_dir=/home/me/runs/1"],
    },
    "sources": {
        "base": {
            "kind": "hub", "given": "google-bert/bert-base-uncased", "revision": COMMIT, "licence": "apache-2.0",
            "language": "en",
        },
        "data": {"kind": "hub", "given": "owner/reviews", "revision": COMMIT[::-1], "licence": "cc-by-4.0"},
    },
    "decisions": {"precision": "bf16", "threads": 2, "loss": "cross_entropy"},
    "history": [
        {"step": 10, "epoch": 0.5, "loss": 0.9},
        {"step": 20, "epoch": 1.0, "validation": {"loss": 0.5, "accuracy": 0.8}},
        {"step": 30, "epoch": 1.5, "loss": 0.4},
        {"step": 40, "epoch": 2.0, "validation": {"loss": 0.2, "accuracy": 0.9}},
    ],
    "is_adapter": False,
    "own_text": "",
}  # fmt: skip
