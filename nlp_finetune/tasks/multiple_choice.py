"""Multiple choice: which of two or more options answers a question, another number of them in each row.

Canonical rows: `question`, `options`, `names` (what the data call the options), with a text that the
question is about `context`, `label` (position of the right option) and `row`. A prediction is an array
of probabilities, one an option.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from nlp_finetune.data import choices, right_options
from nlp_finetune.data.choice_encoding import COUNTS, OnLong
from nlp_finetune.errors import InputError
from nlp_finetune.tasks.base import BaseTask, Say, TaskOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

    from nlp_finetune.data.checks import Finding
    from nlp_finetune.metrics.details import RowScores


class MultipleChoiceOptions(TaskOptions):
    """Options of multiple choice."""

    columns: ClassVar[tuple[str, ...]] = ("context", "question", "options", "label")

    name: Literal["multiple_choice"] = "multiple_choice"
    context: str | None = Field(
        default=None, description="Column of a text that the question is about; null = by name, or none."
    )
    question: str | None = Field(default=None, description="Column of what the options answer; null = by name.")
    options: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Column of lists of options, or several columns of one option each; null = by name.",
    )
    label: str | None = Field(
        default=None, description="Column of the right option: its letter, number or text; null = by name."
    )
    max_length: int = Field(
        default=128, ge=8, description="Longest input in tokens: the question and one of its options."
    )
    on_long: OnLong = Field(
        default="truncate", description="What happens to longer ones: cut the longer part, or stop."
    )


class Task(BaseTask):
    """A head that scores each option with its question; softmax over the options of a row."""

    Options: ClassVar[type[TaskOptions]] = MultipleChoiceOptions
    auto_class: ClassVar[str] = "AutoModelForMultipleChoice"
    metric = "accuracy"
    changeable_texts = ("context", "question")
    options: MultipleChoiceOptions

    def __init__(self, options: MultipleChoiceOptions) -> None:
        super().__init__(options)
        self.columns = choices.Columns(None, "question", ["choices"], "label")
        self.way = right_options.WAYS[0]

    # -- data ---------------------------------------------------------------------------------

    def prepare(self, splits: Mapping[str, Dataset], say: Say) -> dict[str, Dataset]:
        options = self.options
        self.columns = columns = choices.find(
            splits["train"],
            context=options.context, question=options.question, options=options.options, label=options.label,
        )  # fmt: skip
        labelled = {}
        for name, data in splits.items():
            if name == "test" and not right_options.has_labels(data, columns.label):
                say("test: no labels; it is left out (predict takes such files)")
            else:
                labelled[name] = data
        rows = {name: choices.read(data, columns, name) for name, data in labelled.items()}
        cells = {name: self._labels(data, name) for name, data in labelled.items()}
        self.way = right_options.learn(cells, rows, columns)
        for name, canonical in rows.items():
            canonical["label"] = right_options.read(cells[name], canonical, columns, name, way=self.way)
        counts = [len(options) for options in rows["train"]["options"]]
        fewest, most = min(counts), max(counts)
        context = "" if columns.context is None else f"context: {columns.context}; "
        say(
            f"{context}question: {columns.question}; options: {' + '.join(columns.options)}, "
            f"{fewest if fewest == most else f'{fewest} to {most}'} a row; {columns.label}: given by {self.way}"
        )
        from datasets import Dataset

        return {name: Dataset.from_dict(canonical) for name, canonical in rows.items()}

    def _labels(self, data: Dataset, split: str) -> list[Any]:
        from nlp_finetune.data.texts import describe_columns

        label = self.columns.label
        if label is None or label not in data.column_names:
            which = "No label column found by name" if label is None else f"no label column {label!r}"
            raise InputError(f"{split}: {which}. {describe_columns(data)} Set task.label=COLUMN.")
        return list(data[label][:])

    def inputs(self, data: Dataset, *, labelled: bool) -> Dataset:
        from datasets import Dataset

        rows = choices.read(data, self.columns, "input")
        if labelled:
            cells = self._labels(data, "input")
            rows["label"] = right_options.read(cells, rows, self.columns, "input", way=self.way)
        return Dataset.from_dict(rows)

    def input_columns(self) -> list[str]:
        return self.columns.texts

    def unusable(self, data: Dataset) -> dict[int, str]:
        found = choices.options_of(data, self.columns, "input")
        return {i: problem for i, problem in enumerate(found) if isinstance(problem, str)}

    def from_texts(self, texts: Sequence[str]) -> dict[str, Any]:
        asked = self.columns.texts
        given = list(texts[len(asked) :])
        fits = len(given) >= 2 and (self.columns.listed or len(given) <= len(self.columns.options))
        if not fits:
            most = "or more" if self.columns.listed else f"to {len(self.columns.options)}"
            raise InputError(
                f"--text: this run takes {' and '.join(asked)}, then 2 {most} options, not {len(texts)} texts."
            )
        if self.columns.listed:
            options: dict[str, Any] = {self.columns.options[0]: given}
        else:
            options = {n: given[i] if i < len(given) else "" for i, n in enumerate(self.columns.options)}
        return {**dict(zip(asked, texts, strict=False)), **options}

    def facts(self) -> dict[str, Any]:
        return {"columns": asdict(self.columns), "labels_by": self.way}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.columns = choices.Columns(**facts["columns"])
        self.way = facts["labels_by"]

    def row_text(self, row: Mapping[str, Any]) -> str:
        return "\n".join(self.row_inputs(row))

    def row_inputs(self, row: Mapping[str, Any]) -> list[str]:
        return [*([row["context"]] if "context" in row else []), row["question"], *row["options"]]

    def row_label(self, row: Mapping[str, Any]) -> str | None:
        return None  # positions are no classes: where the right option stands says nothing about the question

    def row_group(self, row: Mapping[str, Any]) -> str | None:
        return row.get("context")

    def findings(self, rows: Mapping[str, Dataset]) -> list[Finding]:
        from nlp_finetune.data.choice_checks import examine

        return examine(rows)

    # -- model --------------------------------------------------------------------------------

    def config_overrides(self) -> dict[str, Any]:
        return {"num_labels": 1}  # one score an option, whatever head the checkpoint had

    def encode(self, rows: Mapping[str, list[Any]], processor: Any) -> dict[str, list[Any]]:
        from nlp_finetune.data import choice_encoding

        options = self.options
        encoded = choice_encoding.encode(rows, processor, max_length=options.max_length, on_long=options.on_long)
        if "label" in rows:
            encoded["labels"] = list(rows["label"])
        return encoded

    def token_lengths(self, rows: Mapping[str, list[Any]], processor: Any) -> list[int]:
        from nlp_finetune.data import choice_encoding

        return choice_encoding.token_lengths(rows, processor)

    def collator(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        from nlp_finetune.data.choice_encoding import OptionsCollator

        return OptionsCollator(processor)

    def model_inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in batch.items() if name not in ("labels", COUNTS)}

    # -- learning -----------------------------------------------------------------------------

    def losses(self) -> tuple[str, ...]:
        return ("cross_entropy", "focal")

    def objective(self, loss: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Any]]:
        from nlp_finetune.models.choices import choice_loss

        def objective(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[torch.Tensor, Any]:
            outputs = model(**self.model_inputs(batch))
            return choice_loss(loss, outputs.logits[0], batch[COUNTS], batch["labels"]) / num_items, outputs

        return objective

    def count_items(self, batch: Mapping[str, Any]) -> int:
        return int(batch["labels"].numel())

    # -- results ------------------------------------------------------------------------------

    def predictions(self, outputs: Any, batch: Mapping[str, Any]) -> list[Any]:
        """Probabilities of each row's options."""
        from nlp_finetune.models.choices import probabilities

        return [row.cpu().numpy() for row in probabilities(outputs.logits[0], batch[COUNTS])]

    def metric_names(self) -> tuple[str, ...]:
        return ("accuracy",)

    def metrics(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, float]:
        return {"accuracy": float(_hits(predictions, rows).mean())}

    def resampled_metric(self, name: str, predictions: Sequence[Any], rows: Dataset) -> Callable[[np.ndarray], float]:
        hits = _hits(predictions, rows)
        return lambda positions: float(hits[positions].mean())

    def row_scores(self, predictions: Sequence[Any], rows: Dataset) -> RowScores:
        from nlp_finetune.metrics.details import row_scores

        return row_scores("accuracy", _hits(predictions, rows))

    def evidence(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, Any]:
        from nlp_finetune.metrics import details

        asked = [rows[name][:] for name in _asked(rows)]
        return details.choices(
            predictions,
            rows["label"][:],
            rows["options"][:],
            text=lambda i: "\n".join(column[i] for column in asked),
            rows=rows["row"][:],
        )

    def baselines(self, rows: Mapping[str, Dataset]) -> dict[str, dict[str, dict[str, float]]]:
        from nlp_finetune.metrics import choice_rivals

        train = [self.row_text(row) for row in rows["train"]]
        found = {}
        for name, data in rows.items():
            if name == "train":
                continue
            options = data["options"][:]
            asked = ["\n".join(texts) for texts in zip(*(data[c][:] for c in _asked(data)), strict=True)]
            rivals = {
                "commonest_position": choice_rivals.commonest_position(rows["train"]["label"][:], options),
                "longest_option": choice_rivals.longest_option(options),
                "tfidf_overlap": choice_rivals.most_similar(train, asked, options),
            }
            found[name] = {rival: self.metrics(scores, data) for rival, scores in rivals.items()}
            found[name]["chance"] = {"accuracy": sum(1 / len(row) for row in options) / len(options)}
        return found

    def decode(self, predictions: Sequence[Any], rows: Dataset) -> list[dict[str, Any]]:
        """The likeliest option, as labels name it and as a text, and the probability of each option."""
        decoded = []
        for shares, row in zip(predictions, rows, strict=True):
            best = int(shares.argmax())
            decoded.append(
                {
                    "label": right_options.written(best, self.way, row),
                    "answer": row["options"][best],
                    "score": float(shares[best]),
                    "options": [
                        {"option": option, "score": float(share)}
                        for option, share in zip(row["options"], shares, strict=True)
                    ],
                }
            )
        return decoded

    def example(self) -> dict[str, Any]:
        return {"question": "What do you cut bread with?", "choices": ["a knife", "a pillow", "a hat"], "label": 0}


def _asked(rows: Dataset) -> list[str]:
    return [name for name in ("context", "question") if name in rows.column_names]


def _hits(predictions: Sequence[Any], rows: Dataset) -> np.ndarray:
    """Whether each row's likeliest option is the right one; NaN where a score is no number."""
    import numpy as np

    # Taken as a miss, a NaN would pass for a wrong answer.
    return np.array(
        [
            float("nan") if np.isnan(scores).any() else float(scores.argmax() == label)
            for scores, label in zip(predictions, rows["label"][:], strict=True)
        ]
    )
