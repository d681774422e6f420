"""Inference: predict and score. Everything that evaluates or predicts calls this module; `saved_runs.py` loads a RUN.

Rows run sorted by length, dealt batch by batch to N processes. Each row is in exactly one batch, the
batches do not depend on N, and loss sums are weighted by items: 1, 2 or 3 processes give the same
predictions and metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.data import drawing
from nlp_finetune.data.batching import by_length
from nlp_finetune.runtime import Runtime
from nlp_finetune.stopping import Interrupted
from nlp_finetune.tasks import base

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

    from nlp_finetune.job import Batch, Objective
    from nlp_finetune.learning.shortcut import Shortcut

MOST_WORKERS = 8
"""Processes that decode images for one process of training or inference; more do not help."""
_BAR_FROM_BATCHES = 20
_BAR_FROM_ROWS = 20_000
"""Shorter passes (a second or two) show no progress bar."""
_MOST_LOGITS_BYTES = 2 * 2**30
"""What the logits of one batch may take, with their softmax: a vocabulary's fill a machine at 64 rows."""
_SEED = 0
"""Rows that are evaluated are changed (masked, say) alike in every run, so that runs can be compared."""


@dataclass(frozen=True)
class Output:
    """One prediction for each canonical row, and the mean loss over all items where labels are known."""

    predictions: list[Any]
    loss: float | None


def encode(task: base.BaseTask, rows: Dataset, processor: Any, *, cache_file: Path | None = None) -> Dataset:
    """Canonical rows to model inputs, through `datasets.map`.

    The result has one row per window; its `source` column is the position of the canonical row. With
    `cache_file` the result is read from there, or written there.
    """

    def encode_batch(batch: dict[str, list[Any]], positions: list[int]) -> dict[str, list[Any]]:
        columns = task.encode(batch, processor)
        columns["source"] = [
            [positions[i] for i in one] if isinstance(one, list) else positions[one] for one in columns["source"]
        ]
        return columns

    import datasets

    if cache_file is not None:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
    show = datasets.enable_progress_bars if len(rows) >= _BAR_FROM_ROWS else datasets.disable_progress_bars
    show()
    return rows.map(
        encode_batch,
        batched=True,
        with_indices=True,
        remove_columns=rows.column_names,
        # The name of the cache file is the fingerprint: hashing tokenizer objects is slow and unstable.
        new_fingerprint=cache_file.stem if cache_file is not None else "uncached",
        cache_file_name=str(cache_file) if cache_file is not None else None,
        load_from_cache_file=cache_file is not None,
        keep_in_memory=cache_file is None,
        desc="encode",
    )


def _column(encoded: Dataset, name: str) -> Sequence[Any]:
    """A column of encoded rows; where there are none, there are no columns either."""
    column: Sequence[Any] = encoded[name] if len(encoded) else []
    return column


def run_model(
    model: torch.nn.Module,
    encoded: Dataset,
    *,
    rows: int,
    collate: Callable[[Sequence[Mapping[str, Any]]], Batch],
    has_labels: Callable[[Batch], bool],
    outputs: Callable[..., Any],
    predictions: Callable[[Any, Mapping[str, Any]], list[Any]],
    merge: Callable[[list[Any]], Any],
    transform: drawing.Transform | None,
    objective: Objective | None,
    count_items: Callable[[Batch], int],
    batch_size: int,
    runtime: Runtime,
    workers: int = 0,
    stop: Callable[[], bool] | None = None,
    numbered: bool = False,
) -> Output:
    """Run a model over encoded rows and gather one prediction per canonical row on every process.

    `rows` is the number of canonical rows. `objective` gives the loss where labels are known, and
    `outputs(model, batch, known=...)` what `predictions` reads. `workers` processes read the rows and change
    them; `numbered` ones carry their position (`drawing.ROW`). `stop` is asked before every batch, by all processes at
    once; where it says yes, all of them raise `Interrupted`.
    """
    import torch

    from nlp_finetune.models.sharding import is_sharded

    mine = _my_batches(_column(encoded, "length"), batch_size, runtime, most_tokens=_most_tokens(model))
    # Every forward pass of a sharded model is one of all processes: who has no batch left runs another's.
    spare = _spare_batch(_column(encoded, "length"), mine, runtime) if is_sharded(model) else []
    drawn = drawing.DrawnRows(encoded, transform=transform, seed=_SEED, numbered=numbered)
    batches = _loader(drawn, [*mine, *spare], collate, workers)
    found: list[tuple[int, Any]] = []
    loss_sum, items = 0.0, 0
    was_training = model.training
    model.eval()
    # What is gathered in inference mode can't be trained with afterwards.
    with torch.no_grad() if is_sharded(model) else torch.inference_mode():
        one = torch.ones((), device=runtime.device)
        watched = _watched([*mine, *spare], runtime, stop)
        for number, (positions, batch) in enumerate(zip(watched, batches, strict=True)):
            batch = {k: v.to(runtime.device) if torch.is_tensor(v) else v for k, v in batch.items()}
            loss, known = None, None
            if objective is not None and has_labels(batch):
                loss, known = objective(model, batch, one)
            answers = predictions(outputs(model, batch, known=known), batch)
            if number >= len(mine):
                break
            found += zip(positions.tolist(), answers, strict=True)
            if loss is not None:
                loss_sum += float(loss)
                items += count_items(batch)
    model.train(was_training)
    gathered = runtime.gather((found, loss_sum, items))
    merged = _merge(encoded, rows, [pair for part in gathered for pair in part[0]], merge)
    total_items = sum(part[2] for part in gathered)
    return Output(merged, sum(part[1] for part in gathered) / total_items if total_items else None)


def _loader(
    rows: drawing.DrawnRows,
    batches: Sequence[np.ndarray],
    collate: Callable[[Sequence[Mapping[str, Any]]], Batch],
    workers: int,
) -> Iterable[Batch]:
    """Collated batches of rows at these positions, which leaves torch's global random state alone."""
    import torch
    from torch.utils.data import DataLoader

    return DataLoader(
        rows,  # type: ignore[arg-type]  # a data set by its methods, not by its class
        batch_sampler=[positions.tolist() for positions in batches],
        collate_fn=collate,
        num_workers=workers if len(batches) > 1 else 0,
        generator=torch.Generator(),
    )


def _my_batches(
    lengths: Sequence[int], batch_size: int, runtime: Runtime, *, most_tokens: int | None = None
) -> list[np.ndarray]:
    """This process's share of all batches, the longest rows first."""
    return by_length(lengths, batch_size, most_tokens=most_tokens)[runtime.rank :: runtime.processes]


def _spare_batch(lengths: Sequence[int], mine: Sequence[np.ndarray], runtime: Runtime) -> list[np.ndarray]:
    """A batch to run along with the others, where they have one more than this process."""
    most = max(runtime.gather(len(mine)))
    return [] if len(mine) == most else by_length(lengths, 1)[-1:]


def _bar(batches: Sequence[np.ndarray], runtime: Runtime) -> Iterable[np.ndarray]:
    """The batches under a progress bar, where there are many."""
    from tqdm import tqdm

    disable = not runtime.is_main or len(batches) < _BAR_FROM_BATCHES
    bar: Iterable[np.ndarray] = tqdm(batches, desc="predict", unit="batch", leave=False, disable=disable)
    return bar


def _watched(batches: Sequence[np.ndarray], runtime: Runtime, stop: Callable[[], bool] | None) -> Iterator[np.ndarray]:
    """The batches under a progress bar; raises `Interrupted` on all processes where `stop` says so on any."""
    if stop is None:
        yield from _bar(batches, runtime)
        return
    rounds = max(runtime.gather(len(batches)))
    for positions in _bar(batches, runtime):
        if stop():
            raise Interrupted
        yield positions
    # A process with fewer batches than others is asked as often as they are.
    if len(batches) < rounds and stop():
        raise Interrupted


def _most_tokens(model: torch.nn.Module) -> int | None:
    """Tokens of one batch, padding included, whose logits over a vocabulary fit; None without such a head."""
    from nlp_finetune.models.summary import logits_bytes

    each = logits_bytes(model)
    return max(1, _MOST_LOGITS_BYTES // each) if each else None


def _merge(encoded: Dataset, rows: int, found: list[tuple[int, Any]], merge: Callable[[list[Any]], Any]) -> list[Any]:
    """One prediction per canonical row, from those of its windows in their order."""
    source = _column(encoded, "source")
    windows: list[list[Any]] = [[] for _ in range(rows)]
    for position, prediction in sorted(found, key=lambda pair: pair[0]):
        if isinstance(source[position], list):
            for row, part in zip(source[position], prediction, strict=True):
                windows[row].append(part)
        else:
            windows[source[position]].append(prediction)
    return [one[0] if len(one) == 1 else merge(one) for one in windows]


@dataclass(frozen=True)
class Model:
    """A task with its model and processor, ready to predict."""

    task: base.BaseTask
    model: torch.nn.Module
    processor: Any
    runtime: Runtime
    batch_size: int
    workers: int = 0
    stop: Callable[[], bool] | None = None
    shortcut: Shortcut | None = None

    def run(self, rows: Dataset, *, encoded: Dataset | None = None, objective: Objective | None = None) -> Output:
        """Predictions for canonical rows, in their order; with a `shortcut`, of the encoded rows that it is for."""
        collate = self.task.collator(self.processor)
        transform = self.task.transform(self.processor)
        if self.shortcut is not None:
            collate, transform = self.shortcut.collate(collate), self.shortcut.transform(transform)
            objective = None if objective is None else self.shortcut.objective(objective)
        return run_model(
            self.model,
            encoded if encoded is not None else encode(self.task, rows, self.processor),
            rows=len(rows),
            collate=collate,
            has_labels=self.task.has_labels,
            outputs=partial(self.task.outputs, processor=self.processor),
            predictions=self.task.predictions,
            merge=self.task.merge,
            transform=transform,
            objective=objective,
            count_items=self.task.count_items,
            batch_size=self.batch_size,
            runtime=self.runtime,
            workers=self.workers,
            stop=self.stop,
            numbered=self.shortcut is not None,
        )

    def answers(self, rows: Dataset) -> list[dict[str, Any]]:
        """One JSON object a row, in the words of the user's data."""
        return self.task.answers(self, rows)

    def predictions(self, rows: Dataset) -> list[Any]:
        """One prediction a canonical row, in their order."""
        return self.run(rows).predictions

    def in_batches(self, lengths: Sequence[int], answer: Callable[[list[int]], Sequence[Any]]) -> list[Any]:
        """What `answer(positions)` gives for batches of rows of like length, in the order of the rows."""
        import torch

        found: list[tuple[int, Any]] = []
        self.model.eval()
        with torch.inference_mode():
            for positions in _watched(_my_batches(lengths, self.batch_size, self.runtime), self.runtime, self.stop):
                found += zip(positions.tolist(), answer(positions.tolist()), strict=True)
        gathered = [pair for part in self.runtime.gather(found) for pair in part]
        return [one for _, one in sorted(gathered, key=lambda pair: pair[0])]


def metrics_with_interval(
    task: base.BaseTask, predictions: Sequence[Any], rows: Dataset, *, metric: str
) -> dict[str, Any]:
    """The task's metrics, `rows`, and a 95 % bootstrap interval of `metric` as `<metric>_ci95`."""
    from nlp_finetune.metrics.intervals import bootstrap

    scores: dict[str, Any] = {"rows": len(rows), **task.metrics(predictions, rows)}
    if metric in scores:
        low, high = bootstrap(task.resampled_metric(metric, predictions, rows), len(rows))
        scores[f"{metric}_ci95"] = [low, high]
    return scores
