"""Text classification: one text or a pair; single label, multi-label or regression.

Canonical rows: `text` (str), `text_pair` (str, for pairs), `label` (int class, list of 0/1 floats, or
float) and `row`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from nlp_finetune.data import labels as label_columns
from nlp_finetune.data import texts as text_columns
from nlp_finetune.errors import InputError
from nlp_finetune.tasks.base import BaseTask, Say, TaskOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

    from nlp_finetune.metrics.details import RowScores

Problem = Literal["single_label", "multi_label", "regression"]

_SEPARATOR = " + "
_CONFIG_NAMES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
_METRICS = {
    "single_label": ("accuracy", "macro_f1", "mcc"),
    "multi_label": ("f1_micro", "f1_macro", "accuracy", "mcc"),
    "regression": ("pearson", "spearman", "rmse", "mae"),
}
"""What is measured for each kind of problem; the first picks the best checkpoint."""
_LOSSES = {"single_label": ("cross_entropy", "focal"), "multi_label": ("bce",), "regression": ("mse", "huber")}


class TextClassificationOptions(TaskOptions):
    """Options of text classification."""

    name: Literal["text_classification"] = "text_classification"
    text: list[str] | None = Field(
        default=None, min_length=1, max_length=2, description="Text column, or two for pairs; null = by name."
    )
    label: str | list[str] | None = Field(
        default=None, description="Label column, or several 0/1 columns for multi-label; null = by name."
    )
    problem: Problem | None = Field(default=None, description="Kind of problem; null = inferred from the label column.")
    max_length: int = Field(default=128, ge=4, description="Longest input in tokens, special tokens included.")
    on_long: text_columns.OnLong = Field(
        default="truncate",
        description="What happens to longer rows: cut the end, cut the middle, average over windows, or stop.",
    )
    tune_threshold: Literal["accuracy", "macro_f1", "mcc"] | None = Field(
        default=None,
        description="Of two classes: metric by which the threshold between them is tuned on validation; null = 0.5.",
    )


class Task(BaseTask):
    """Sequence classification and regression heads over one text or a pair."""

    Options: ClassVar[type[TaskOptions]] = TextClassificationOptions
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    changeable_texts = ("text", "text_pair")
    mixes = "embeddings"
    options: TextClassificationOptions

    def __init__(self, options: TextClassificationOptions) -> None:
        super().__init__(options)
        self.problem: Problem = options.problem or "single_label"
        self.names: list[str] = []
        self.text: list[str] = list(options.text or [])
        self.label: str | list[str] | None = options.label
        self.thresholds: list[float] | None = None
        self.threshold: float | None = None

    @property
    def metric(self) -> str:  # type: ignore[override]
        return _METRICS[self.problem][0]

    @property
    def one_class_a_row(self) -> bool:  # type: ignore[override]
        return self.problem == "single_label"

    @property
    def label_separator(self) -> str | None:  # type: ignore[override]
        return _SEPARATOR if self.problem == "multi_label" else None

    @property
    def cuts_long_rows(self) -> bool:  # type: ignore[override]
        return self.options.on_long != "window"

    # -- data ---------------------------------------------------------------------------------

    def prepare(self, splits: Mapping[str, Dataset], say: Say) -> dict[str, Dataset]:
        train = splits["train"]
        self.text = text_columns.find(train, self.options.text, taken=self.options.label)
        self.label = label_columns.find(train, self.options.label, taken=self.text)
        if len(self.text) == 2 and self.options.on_long == "head_tail":
            raise InputError("task.on_long=head_tail cuts the middle of one text; use truncate or window for pairs.")
        labelled = {}
        for name, data in splits.items():
            if name == "test" and not label_columns.has_labels(data, self.label):
                say("test: no labels; it is left out (predict takes such files)")
            else:
                labelled[name] = data
        learned = label_columns.learn(labelled, self.label, problem=self.options.problem)
        self.problem, self.names = learned.problem, learned.names
        if self.options.tune_threshold is not None and (self.problem != "single_label" or len(self.names) != 2):
            raise InputError(
                f"task.tune_threshold: is for rows with one of two classes; {self._label_name} has {learned.summary}."
            )
        say(f"text: {' + '.join(self.text)}; label {self._label_name}: {learned.summary}")
        return {name: self._canonical(data, name, labelled=True) for name, data in labelled.items()}

    @property
    def _label_name(self) -> str:
        return self.label if isinstance(self.label, str) else " + ".join(self.label or [])

    def inputs(self, data: Dataset, *, labelled: bool) -> Dataset:
        return self._canonical(data, "input", labelled=labelled)

    def input_columns(self) -> list[str]:
        return self.text

    def _canonical(self, data: Dataset, split: str, *, labelled: bool) -> Dataset:
        columns = text_columns.read(data, self.text, split)
        if labelled:
            columns["label"] = label_columns.read(data, self.label or [], split, problem=self.problem, names=self.names)
        from datasets import Dataset

        return Dataset.from_dict(columns)

    def facts(self) -> dict[str, Any]:
        found = {
            "problem": self.problem,
            "labels": self.names,
            "text": self.text,
            "label": self.label,
            "thresholds": self.thresholds,
        }
        return found if self.threshold is None else {**found, "threshold": self.threshold}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.problem, self.names = facts["problem"], list(facts["labels"])
        self.text, self.label = list(facts["text"]), facts["label"]
        self.thresholds, self.threshold = facts["thresholds"], facts.get("threshold")

    def row_text(self, row: Mapping[str, Any]) -> str:
        return str(row["text"]) + ("\n" + row["text_pair"] if "text_pair" in row else "")

    def row_inputs(self, row: Mapping[str, Any]) -> list[str]:
        return [row[name] for name in ("text", "text_pair") if name in row]

    def row_label(self, row: Mapping[str, Any]) -> str | None:
        if self.problem == "single_label":
            return str(self.names[row["label"]])
        if self.problem == "multi_label":
            return _SEPARATOR.join(n for n, on in zip(self.names, row["label"], strict=True) if on)
        return None

    # -- model --------------------------------------------------------------------------------

    def config_overrides(self) -> dict[str, Any]:
        names = self.names or ["score"]
        return {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
            "problem_type": _CONFIG_NAMES[self.problem],
        }

    def encode(self, rows: Mapping[str, list[Any]], processor: Any) -> dict[str, list[Any]]:
        encoded = text_columns.encode(rows, processor, max_length=self.options.max_length, on_long=self.options.on_long)
        if "label" in rows:
            encoded["labels"] = [rows["label"][i] for i in encoded["source"]]
        return encoded

    def token_lengths(self, rows: Mapping[str, list[Any]], processor: Any) -> list[int]:
        return text_columns.token_lengths(rows, processor)

    def collator(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        import torch

        dtype = torch.long if self.problem == "single_label" else torch.float32
        return text_columns.PaddingCollator(processor, label_dtype=dtype)

    # -- learning -----------------------------------------------------------------------------

    def losses(self) -> tuple[str, ...]:
        return _LOSSES[self.problem]

    def objective(self, loss: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Any]]:
        def objective(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[torch.Tensor, Any]:
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            outputs = model(**inputs)
            return loss(outputs.logits, batch["labels"]) / num_items, outputs

        return objective

    def count_items(self, batch: Mapping[str, Any]) -> int:
        return int(batch["labels"].numel())

    # -- results ------------------------------------------------------------------------------

    def predictions(self, outputs: Any, batch: Mapping[str, Any]) -> list[Any]:
        """Probabilities `[classes]` a row, or `[1]` with the predicted value."""
        logits = outputs.logits.float()
        if self.problem == "single_label":
            logits = logits.softmax(-1)
        elif self.problem == "multi_label":
            logits = logits.sigmoid()
        return list(logits.cpu().numpy())

    def merge(self, windows: list[Any]) -> Any:
        """Mean of the windows' probabilities."""
        return sum(windows) / len(windows)

    def metric_names(self) -> tuple[str, ...]:
        return _METRICS[self.problem]

    def metrics(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, float]:
        import numpy as np

        return self._measure(np.stack(predictions), np.asarray(rows["label"]), self._thresholds())

    def _measure(self, predicted: np.ndarray, labels: np.ndarray, thresholds: Any) -> dict[str, float]:
        """Scores; `thresholds` are those of several classes a row, or the one between two classes (or None)."""
        from nlp_finetune.metrics import classification
        from nlp_finetune.metrics.regression import regression

        if self.problem == "single_label":
            return classification.single_label(predicted, labels, thresholds)
        if self.problem == "multi_label":
            return classification.multi_label(predicted, labels, thresholds)
        return regression(predicted[:, 0], labels)

    def _thresholds(self) -> Any:
        import numpy as np

        if self.problem == "single_label":
            return self.threshold
        return 0.5 if self.thresholds is None else np.asarray(self.thresholds)

    def tune(self, predictions: Sequence[Any], rows: Dataset) -> None:
        import numpy as np

        predicted = np.stack(predictions)
        if np.isnan(predicted).any():  # of a model that has diverged, whose scores are NaN
            return
        tuned = self._tuned(predicted, np.asarray(rows["label"]))
        if self.problem == "multi_label":
            self.thresholds = tuned
        elif self.problem == "single_label":
            self.threshold = tuned

    def _tuned(self, predicted: np.ndarray, labels: np.ndarray) -> Any:
        """Best thresholds on these rows, as `_measure` takes them; those that hold without, where none are tuned."""
        from nlp_finetune.metrics.classification import DEFAULT_THRESHOLD, tune_threshold, tune_thresholds

        if self.problem == "multi_label":
            return tune_thresholds(predicted, labels, metric=self.judged_by)
        if self.options.tune_threshold is not None:
            return tune_threshold(predicted, labels, metric=self.options.tune_threshold)
        return None if self.problem == "single_label" else DEFAULT_THRESHOLD

    def resampled_metric(self, name: str, predictions: Sequence[Any], rows: Dataset) -> Callable[[np.ndarray], float]:
        import numpy as np

        predicted, labels = np.stack(predictions), np.asarray(rows["label"])
        return lambda positions: self._measure(predicted[positions], labels[positions], self._thresholds())[name]

    def row_scores(self, predictions: Sequence[Any], rows: Dataset) -> RowScores:
        import numpy as np

        from nlp_finetune.metrics import details
        from nlp_finetune.metrics.classification import chosen_class

        predicted, labels = np.stack(predictions), np.asarray(rows["label"])
        if self.problem == "regression":
            return details.row_scores("mae", np.abs(predicted[:, 0] - labels), greater=False)
        if self.problem == "single_label":
            return details.row_scores("accuracy", chosen_class(predicted, self.threshold) == labels)
        chosen = predicted.astype(np.float64) >= self._thresholds()
        hits = (chosen & (labels > 0.5)).sum(axis=1)
        return details.row_scores("f1_micro", 2 * hits, chosen.sum(axis=1) + labels.sum(axis=1))

    def evidence(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, Any]:
        import numpy as np

        from nlp_finetune.metrics import details

        predicted, labels, numbers = np.stack(predictions), np.asarray(rows["label"]), rows["row"][:]
        text = partial(self._text_at, rows)
        if self.problem == "single_label":
            return details.single_label(
                predicted, labels, self.names, text=text, rows=numbers, threshold=self.threshold
            )
        if self.problem == "multi_label":
            return details.multi_label(predicted, labels, self.names, self._thresholds(), text=text, rows=numbers)
        return details.regression(predicted[:, 0], labels, text=text, rows=numbers)

    def _text_at(self, rows: Dataset, position: int) -> str:
        return self.row_text(rows[position])

    def baselines(self, rows: Mapping[str, Dataset]) -> dict[str, dict[str, dict[str, float]]]:
        import numpy as np

        from nlp_finetune.metrics import baselines

        labels = {name: np.asarray(data["label"]) for name, data in rows.items()}
        texts = {name: text_columns.joined(data) for name, data in rows.items()}
        others = [name for name in rows if name != "train"]
        found = baselines.rivals(
            self.problem,
            texts["train"],
            labels["train"],
            [text for name in others for text in texts[name]],
            classes=len(self.names),
        )
        ends = np.cumsum([len(texts[name]) for name in others])[:-1]
        scores: dict[str, dict[str, dict[str, float]]] = {name: {} for name in others}
        for rival, predicted in found.items():
            parts = dict(zip(others, np.split(predicted, ends), strict=True))
            # The model's thresholds are tuned on validation, so its rivals' are too.
            thresholds = self._tuned(parts["validation"], labels["validation"])
            for name, part in parts.items():
                scores[name][rival] = self._measure(part, labels[name], thresholds)
        return scores

    def decode(self, predictions: Sequence[Any], rows: Dataset) -> list[dict[str, Any]]:
        if self.problem == "regression":
            return [{"score": float(p[0])} for p in predictions]
        return [self._decode_one(p) for p in predictions]

    def _decode_one(self, probabilities: Any) -> dict[str, Any]:
        import numpy as np

        from nlp_finetune.metrics.classification import chosen_class

        scores = {name: float(p) for name, p in zip(self.names, probabilities, strict=True)}
        if self.problem == "multi_label":
            on = np.asarray(probabilities) >= self._thresholds()
            chosen = [name for name, is_on in zip(self.names, on, strict=True) if is_on]
            return {"labels": chosen, "scores": scores}
        best = int(chosen_class(np.asarray(probabilities)[None], self.threshold)[0])
        return {"label": self.names[best], "score": scores[self.names[best]], "scores": scores}

    def example(self) -> dict[str, Any]:
        return {"text": "The soup was worth the wait.", "label": "positive"}
