"""Evidence behind the scores of a run, written where the saved weights are measured.

details.json               {"validation": {...}, "test": {...}, "train": {...}}: what `BaseTask.evidence` gives,
                           `rows`, `row_score` and `by_length`; for training rows only `suspects`
predictions/SPLIT.jsonl    one object a row: `key` (a hash of text and label, the same in every run), `row`,
                           `score`, `weight`, `text` (its beginning) and `prediction`

`row_score` is `{"name", "greater_is_better"}`: the score of any set of rows is the mean of their `score`
weighted by `weight`, which is how runs are compared row by row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nlp_finetune.data import ROW
from nlp_finetune.metrics.details import RowScores, by_length, shortened
from nlp_finetune.runs.folder import RunFolder, write_json, write_text
from nlp_finetune.runtime import say

if TYPE_CHECKING:
    from datasets import Dataset

    from nlp_finetune.inference import Model, Output
    from nlp_finetune.preparation import Prepared
    from nlp_finetune.tasks.base import BaseTask

MOST_ROWS = 10_000
"""Rows of a split whose predictions are written; the first ones, so that two runs write the same."""
MOST_TRAINING_ROWS = 2_000
_SHARE_OF_TRAINING = 3
"""A prediction costs a third of a training step, so a third of the rows trained on is a ninth of the time."""
_CONFIDENT = 0.5
"""A less confident contradiction is no ground to suspect a label."""
_SHOWN_TEXT = 160
_LONGEST_PREDICTION = 1_000
_BATCH = 1_000


def record(
    folder: RunFolder,
    prepared: Prepared,
    scorer: Model,
    outputs: Mapping[str, Output],
    *,
    trained_rows: int,
) -> None:
    """Write down what stands behind the scores of `outputs`, by split; where that fails, go on without."""
    task, rows = prepared.task, prepared.rows
    try:
        details = {
            name: of_split(task, output.predictions, rows[name], prepared.processor) for name, output in outputs.items()
        }
        if "mistakes" in details["validation"]:
            seed = prepared.recipe.train.seed
            details["train"] = suspects(scorer, rows["train"], trained_rows=trained_rows, seed=seed)
        if scorer.runtime.is_main:
            write_details(folder, details)
            for name, output in outputs.items():
                write_predictions(folder, name, task, output.predictions, rows[name])
    except Exception as error:
        say(f"the evidence behind the scores is left out ({type(error).__name__}: {error})")


def of_split(task: BaseTask, predictions: Sequence[Any], rows: Dataset, processor: Any) -> dict[str, Any]:
    """What details.json says about a split."""
    found: dict[str, Any] = {"rows": len(rows), **task.evidence(predictions, rows)}
    scores = task.row_scores(predictions, rows)
    if scores is not None:
        found["row_score"] = {"name": scores.name, "greater_is_better": scores.greater_is_better}
        found["by_length"] = by_length(scores, _token_lengths(task, rows, processor))
    return found


def _token_lengths(task: BaseTask, rows: Dataset, processor: Any) -> list[int]:
    batches = (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))
    return [length for batch in batches for length in task.token_lengths(batch, processor)]


def suspects(scorer: Model, train: Dataset, *, trained_rows: int, seed: int) -> dict[str, Any]:
    """Training rows that the finished model still contradicts: likely labelled wrongly.

    A model that has learned a wrong label by heart no longer contradicts it, so some are missed. At most
    2,000 rows, drawn at random, and a third of the rows trained on are looked at: `rows` says how many,
    `of` out of how many. Every process takes part.
    """
    count = max(1, min(len(train), MOST_TRAINING_ROWS, trained_rows // _SHARE_OF_TRAINING))
    if count < len(train):
        train_rows = train.select(np.sort(np.random.default_rng(seed).choice(len(train), count, replace=False)))
    else:
        train_rows = train
    details = scorer.task.evidence(scorer.predictions(train_rows), train_rows)
    found: list[dict[str, Any]] = details.get("mistakes", [])
    if details.get("mistakes_by") == "confidence":
        found = [one for one in found if one["score"] >= _CONFIDENT]
    return {"rows": count, "of": len(train), "suspects_by": details.get("mistakes_by"), "suspects": found}


def write_details(folder: RunFolder, details: dict[str, Any]) -> None:
    """Write details.json; numbers that are not finite (a model that diverged) become null."""
    write_json(folder.details, _plain(details))


def write_predictions(folder: RunFolder, split: str, task: BaseTask, predictions: Sequence[Any], rows: Dataset) -> None:
    """Write predictions/SPLIT.jsonl, of the first 10,000 rows."""
    scores = task.row_scores(predictions, rows)
    if len(rows) > MOST_ROWS:
        rows, predictions = rows.select(range(MOST_ROWS)), predictions[:MOST_ROWS]
    decoded = task.decode(predictions, rows)
    lines = [
        json.dumps(_plain(_line(task, row, answer, scores, position)), ensure_ascii=False)
        for position, (row, answer) in enumerate(zip(rows, decoded, strict=True))
    ]
    folder.predictions.mkdir(exist_ok=True)
    write_text(folder.predictions / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))


def _line(
    task: BaseTask, row: dict[str, Any], answer: dict[str, Any], scores: RowScores | None, position: int
) -> dict[str, Any]:
    text = task.row_text(row)
    # Probabilities of all classes would make the file as large as the data.
    short = {name: value for name, value in answer.items() if name not in ("scores", "options")}
    line: dict[str, Any] = {"key": _key(text, task.row_label(row)), "row": row[ROW]}
    if scores is not None:
        line |= {"score": float(scores.values[position]), "weight": float(scores.weights[position])}
    fits = len(json.dumps(short, ensure_ascii=False, default=str)) <= _LONGEST_PREDICTION
    return {**line, "text": shortened(text, _SHOWN_TEXT), "prediction": short if fits else None}


def _key(text: str, label: str | None) -> str:
    return hashlib.blake2b(f"{text}\0{label}".encode(), digest_size=8).hexdigest()


def _plain(value: Any) -> Any:
    """The same in plain JSON, which knows no NaN and no infinity."""
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
