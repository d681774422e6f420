"""Extractive question answering: the answer is a span of a context, or there is none.

Canonical rows: `question`, `context`, `answers` (gold texts, none where the context does not answer),
`starts` (their character positions) and `row`. A prediction is an array `[spans, 3]` of the best
spans, best first: log odds against "no answer", first character, end character.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from nlp_finetune.data import questions
from nlp_finetune.errors import InputError
from nlp_finetune.tasks.base import BaseTask, Say, TaskOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

    from nlp_finetune.augment.texts import TextChange
    from nlp_finetune.data.checks import Finding
    from nlp_finetune.metrics.answers import Scores
    from nlp_finetune.metrics.details import RowScores

_NOT_FOR_THE_MODEL = ("start_positions", "end_positions", "null_position", "char_start", "char_end")
_METRICS = ("f1", "exact_match")
_MOST_STRIDE = 3
"""Windows share at most a third of their tokens: half of one may be taken by the question."""


class QuestionAnsweringOptions(TaskOptions):
    """Options of question answering."""

    name: Literal["question_answering"] = "question_answering"
    question: str | None = Field(default=None, description="Column of the questions; null = by name.")
    context: str | None = Field(default=None, description="Column of the texts with the answers; null = by name.")
    answers: str | None = Field(
        default=None, description="Column of the answers, with `text` and `answer_start`; null = by name."
    )
    max_length: int = Field(
        default=384, ge=16, description="Longest input in tokens: the question and a window of its context."
    )
    stride: int | None = Field(
        default=None, ge=0, description="Tokens that neighbouring windows share; null is a third of max_length."
    )
    max_answer: int | None = Field(
        default=None, ge=1, description="Longest answer in characters; null is the longest of the training rows."
    )

    @model_validator(mode="after")
    def _refuse_wide_stride(self) -> QuestionAnsweringOptions:
        if self.stride is not None and self.stride > self.max_length // _MOST_STRIDE:
            text = f"{self.stride} is more than a third of max_length, which is {self.max_length}"
            raise PydanticCustomError("conflict", "{text}", {"text": text, "conflicts": [("stride", text)]})
        return self


class Task(BaseTask):
    """Span heads over a question and windows of its context."""

    Options: ClassVar[type[TaskOptions]] = QuestionAnsweringOptions
    auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    metric = _METRICS[0]
    cuts_long_rows = False
    changeable_texts = ("question", "context")
    keeps_needed: ClassVar[frozenset[str]] = frozenset({"label", "spans"})
    options: QuestionAnsweringOptions

    def __init__(self, options: QuestionAnsweringOptions) -> None:
        super().__init__(options)
        self.columns = questions.Columns("question", "context", "answers")
        self.longest = options.max_answer or 1
        self.threshold: float | None = None
        self._both_kinds = False
        self._reports: dict[str, questions.Report] = {}

    # -- data ---------------------------------------------------------------------------------

    def prepare(self, splits: Mapping[str, Dataset], say: Say) -> dict[str, Dataset]:
        options = self.options
        self.columns = questions.find(
            splits["train"], question=options.question, context=options.context, answers=options.answers
        )
        rows = {}
        for name, data in splits.items():
            if name == "test" and not questions.has_answers(data, self.columns):
                say("test: no answers; it is left out (predict takes such files)")
            else:
                rows[name], self._reports[name] = self._canonical(data, name, labelled=True)
        rows["train"] = self._usable(rows["train"])
        golds = rows["train"]["answers"][:]
        answerable = sum(map(bool, golds))
        if not answerable:
            raise InputError(
                f"train: none of the {len(golds)} questions has an answer. Is {self.columns.answers!r} right?"
            )
        self.longest = options.max_answer or max(len(text) for answers in golds for text in answers)
        self.threshold = None if answerable == len(golds) else 0.0
        judged = rows.get("validation", rows["train"])["answers"][:]
        self._both_kinds = any(judged) and not all(judged)
        some = "" if self.threshold is None else f", {len(golds) - answerable:,} of them without an answer"
        say(
            f"question: {self.columns.question}; context: {self.columns.context}; "
            f"{self.columns.answers}: {len(golds):,} questions{some}, answers of up to {self.longest:,} characters"
        )
        return rows

    def _canonical(self, data: Dataset, split: str, *, labelled: bool) -> tuple[Dataset, questions.Report]:
        from datasets import Dataset

        columns, report = questions.read(data, self.columns, split, labelled=labelled)
        return Dataset.from_dict(columns), report

    def _usable(self, train: Dataset) -> Dataset:
        """Training rows without those whose answers are not in their context."""
        unusable = set(self._reports["train"].unusable)
        if len(unusable) == len(train):
            raise InputError(
                f"train: in none of the {len(train)} rows an answer stands in its context "
                f"(first: row {train['row'][0]}). "
                "answer_start counts characters of the context from 0."
            )
        return train.select([i for i, row in enumerate(train["row"][:]) if row not in unusable])

    def inputs(self, data: Dataset, *, labelled: bool) -> Dataset:
        return self._canonical(data, "input", labelled=labelled)[0]

    def input_columns(self) -> list[str]:
        return [self.columns.question, self.columns.context]

    def facts(self) -> dict[str, Any]:
        return {"columns": asdict(self.columns), "longest_answer": self.longest, "no_answer_threshold": self.threshold}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.columns = questions.Columns(**facts["columns"])
        self.longest, self.threshold = facts["longest_answer"], facts["no_answer_threshold"]

    def row_text(self, row: Mapping[str, Any]) -> str:
        return f"{row['question']}\n{row['context']}"

    def row_label(self, row: Mapping[str, Any]) -> str | None:
        if self.threshold is None:
            return None
        return "answer" if row["answers"] else "no answer"

    def row_group(self, row: Mapping[str, Any]) -> str | None:
        return str(row["context"])

    def row_inputs(self, row: Mapping[str, Any]) -> list[str]:
        return [row["question"], row["context"]]

    def findings(self, rows: Mapping[str, Dataset]) -> list[Finding]:
        from nlp_finetune.data import question_checks

        return question_checks.examine(self._reports, {name: data["context"][:] for name, data in rows.items()})

    # -- model --------------------------------------------------------------------------------

    def config_overrides(self) -> dict[str, Any]:
        return {"num_labels": 2}  # start and end, whatever head the checkpoint had

    def encode(self, rows: Mapping[str, list[Any]], processor: Any) -> dict[str, list[Any]]:
        from nlp_finetune.data import answer_windows

        length, stride = self.options.max_length, self.options.stride
        stride = length // _MOST_STRIDE if stride is None else stride
        return answer_windows.encode(rows, processor, max_length=length, stride=stride)

    def changed(self, row: Mapping[str, Any], change: TextChange, random: np.random.Generator) -> dict[str, Any]:
        """Question and context changed, but for the answer that is learned, which stands where it has moved to."""
        places = zip(row["answers"], row["starts"], strict=True)
        known = next(((text, start) for text, start in places if start != questions.UNKNOWN), None)
        if known is None:
            return super().changed(row, change, random)
        text, start = known
        context, moved = change.around(row["context"], (start, start + len(text)), random)
        question = change.text(row["question"], random)
        return {**row, "question": question, "context": context, "answers": [text], "starts": [moved]}

    def token_lengths(self, rows: Mapping[str, list[Any]], processor: Any) -> list[int]:
        from nlp_finetune.data import answer_windows

        return answer_windows.token_lengths(rows, processor)

    def collator(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        from nlp_finetune.data.answer_windows import WindowCollator

        return WindowCollator(processor)

    def has_labels(self, batch: Mapping[str, Any]) -> bool:
        return "start_positions" in batch

    def model_inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in batch.items() if name not in _NOT_FOR_THE_MODEL}

    # -- learning -----------------------------------------------------------------------------

    def losses(self) -> tuple[str, ...]:
        return ("cross_entropy", "focal")

    def objective(self, loss: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Any]]:
        from nlp_finetune.models.spans import span_loss

        def objective(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[torch.Tensor, Any]:
            outputs = model(**self.model_inputs(batch))
            return span_loss(loss, outputs, batch) / num_items, outputs

        return objective

    def count_items(self, batch: Mapping[str, Any]) -> int:
        return int((batch["start_positions"] >= 0).sum())

    # -- results ------------------------------------------------------------------------------

    def predictions(self, outputs: Any, batch: Mapping[str, Any]) -> list[Any]:
        from nlp_finetune.models.spans import window_spans

        return list(window_spans(outputs, batch, longest=self.longest))

    def merge(self, windows: list[Any]) -> Any:
        from nlp_finetune.models.spans import merge

        return merge(windows)

    def _is_silent(self, spans: np.ndarray) -> bool:
        """Whether "no answer" is the answer."""
        return len(spans) == 0 or (self.threshold is not None and bool(spans[0, 0] < self.threshold))

    def _texts(self, predictions: Sequence[Any], rows: Dataset) -> list[str]:
        """Answer of each row, empty where there is none."""
        return [
            "" if self._is_silent(spans) else context[int(spans[0, 1]) : int(spans[0, 2])].strip()
            for spans, context in zip(predictions, rows["context"][:], strict=True)
        ]

    def _scores(self, predictions: Sequence[Any], rows: Dataset) -> Scores:
        from nlp_finetune.metrics.answers import score

        return score(self._texts(predictions, rows), rows["answers"][:])

    def metric_names(self) -> tuple[str, ...]:
        kinds = ("answerable", "unanswerable") if self._both_kinds else ()
        return (*_METRICS, *(f"{name}_{kind}" for kind in kinds for name in _METRICS))

    def metrics(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, float]:
        return self._scores(predictions, rows).metrics()

    def resampled_metric(self, name: str, predictions: Sequence[Any], rows: Dataset) -> Callable[[np.ndarray], float]:
        scores = self._scores(predictions, rows)
        # A sample may lack one kind of question, and with it the metrics of that kind.
        return lambda positions: scores.metrics(positions).get(name, float("nan"))

    def tune(self, predictions: Sequence[Any], rows: Dataset) -> None:
        """Choose the threshold on the best span's log odds that makes F1 largest."""
        import numpy as np

        from nlp_finetune.metrics.answers import best_threshold, score

        found = [i for i, spans in enumerate(predictions) if len(spans)]
        golds = rows["answers"][:]
        if not found or all(golds) or not any(golds):
            return
        self.threshold = None
        chosen, kept = rows.select(found), [predictions[i] for i in found]
        answered = score(self._texts(kept, chosen), [golds[i] for i in found]).f1
        silent = np.array([float(not golds[i]) for i in found])
        self.threshold = best_threshold(np.array([spans[0, 0] for spans in kept]), answered, silent)

    def baselines(self, rows: Mapping[str, Dataset]) -> dict[str, dict[str, dict[str, float]]]:
        from nlp_finetune.metrics import answer_rivals
        from nlp_finetune.metrics.answers import score

        found: dict[str, dict[str, dict[str, float]]] = {}
        for name, data in rows.items():
            if name != "train":
                golds = data["answers"][:]
                texts = {"closest_sentence": answer_rivals.closest_sentences(data["question"][:], data["context"][:])}
                if self.threshold is not None:
                    texts["no_answer"] = [""] * len(golds)
                found[name] = {rival: score(answers, golds).metrics() for rival, answers in texts.items()}
        return found

    def row_scores(self, predictions: Sequence[Any], rows: Dataset) -> RowScores:
        from nlp_finetune.metrics.details import row_scores

        return row_scores("f1", self._scores(predictions, rows).f1)

    def evidence(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, Any]:
        from nlp_finetune.metrics import answer_details

        decoded = self.decode(predictions, rows)
        return answer_details.details(
            [one["answer"] for one in decoded],
            [one["score"] for one in decoded],
            self._scores(predictions, rows),
            questions=rows["question"][:],
            golds=rows["answers"][:],
            rows=rows["row"][:],
        )

    def decode(self, predictions: Sequence[Any], rows: Dataset) -> list[dict[str, Any]]:
        """Answer, its share among the best spans and "no answer", its character positions (null if none)."""
        from nlp_finetune.models.spans import shares

        decoded = []
        for spans, context, answer in zip(predictions, rows["context"][:], self._texts(predictions, rows), strict=True):
            probabilities, none = shares(spans)
            start = context.index(answer, int(spans[0, 1])) if answer else None
            decoded.append(
                {
                    "answer": answer,
                    "score": float(probabilities[0]) if answer else none,
                    "start": start,
                    "end": None if start is None else start + len(answer),
                    "no_answer_score": none,
                }
            )
        return decoded

    def example(self) -> dict[str, Any]:
        context = "The ferry to Ossel leaves at noon."
        return {
            "question": "When does the ferry leave?",
            "context": context,
            "answers": {"text": ["at noon"], "answer_start": [context.index("at noon")]},
        }
