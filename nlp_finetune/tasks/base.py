"""The contract of a task: the only thing that knows what kind of problem this is.

One file in this folder is one task, found by its name; the file defines a class called `Task`. It
imports torch and transformers inside functions only, so that a recipe is checked whole, options of
the task included, without them.

The life of a task in a training run:

    task = Task(options)
    rows = task.prepare(splits, say)         raw columns -> canonical rows; learns labels, problem kind
    processor = task.processor(checkpoint)   tokenizer or image processor
    encoded = task.encode(batch, processor)  canonical rows -> model inputs, through `datasets.map`
    batch = task.collator(processor)(rows)   model inputs -> one padded batch
    loss, outputs = task.objective(...)      sum over items / items of the optimizer step
    arrays = task.predictions(outputs, batch)
    metrics = task.metrics(predictions, rows)
    answers = task.decode(predictions, rows)

and in inference: `task.restore(facts)` in place of learning from `prepare`, then `task.inputs`.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from nlp_finetune.errors import InputError
from nlp_finetune.recipe.schema import TaskOptions as TaskOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

    from nlp_finetune.augment.images import ImageChange
    from nlp_finetune.augment.texts import TextChange
    from nlp_finetune.data.checks import Finding
    from nlp_finetune.data.drawing import Transform
    from nlp_finetune.metrics.details import RowScores
    from nlp_finetune.models.checkpoint import Checkpoint

Say = Callable[[str], None]
"""Takes one line that tells the user what was decided and why."""


class Scorer(Protocol):
    """A model ready for inference, as `inference` offers it to `BaseTask.answers`."""

    @property
    def model(self) -> torch.nn.Module: ...

    @property
    def processor(self) -> Any: ...

    def predictions(self, rows: Dataset) -> list[Any]:
        """One prediction a canonical row, in their order."""

    def in_batches(self, lengths: Sequence[int], answer: Callable[[list[int]], Sequence[Any]]) -> list[Any]:
        """What `answer(positions)` gives for batches of rows of like length, dealt to all processes.

        `lengths` has one entry a row; the result has one too, in their order, on every process.
        """


class BaseTask(ABC):
    """What every task offers. Subclasses are called `Task` and live in one file each."""

    Options: ClassVar[type[TaskOptions]]
    metric: str
    """Default of `train.metric`: the plain name of the metric that picks the best checkpoint."""
    fewest_rows: int = 1
    """Rows that a micro batch must have where they are coupled, or there is nothing to learn."""
    couples_rows: ClassVar[str | None] = None
    """Why results depend on the cut into micro batches (in-batch negatives, say); None if they do not."""
    runs_once: ClassVar[bool] = True
    """Whether a micro batch is one pass of the model: bi-encoders pass once for each side of a pair."""

    images: ClassVar[bool] = False
    """Whether rows are images: folders of image files are data, `predict` takes `--image`, no tokens are counted."""
    heavy_columns: ClassVar[tuple[str, ...]] = ()
    """Canonical columns too large to hold in memory for all rows; `row_text` and `row_label` do without them."""
    text_rows: Literal["line", "paragraph", "file", "auto"] = "line"
    """What is one row of a `.txt` file; `auto` takes paragraphs where blank lines divide them, else lines."""
    at_prediction: ClassVar[tuple[str, ...]] = ()
    """Options that have nothing to do with training: `predict` may set them anew."""
    cuts_long_rows: bool = True
    """Whether tokens beyond the longest input are lost (they are not where windows cover a row)."""
    changeable_texts: tuple[str, ...] = ()
    """Canonical columns whose texts `augment` may change; none where what is read is what is learned."""
    keeps_needed: ClassVar[frozenset[str]] = frozenset({"label"})
    """What a change of a text has to keep (see `augment.texts`), or the row would be wrong."""
    one_class_a_row: bool = False
    """Whether each row has one class, the number of it in `labels`."""
    mixes: ClassVar[Literal["embeddings", "pixels"] | None] = None
    """What mixup mixes of two rows, each with one label or list of labels; None where it can't."""
    label_separator: str | None = None
    """What divides the classes in `row_label` where a row may have several."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.asked_metric: str | None = None
        """`train.metric` where it names one."""

    @property
    def judged_by(self) -> str:
        """Metric that picks the best checkpoint; what is tuned on validation is tuned for it."""
        return self.metric if self.asked_metric is None else self.asked_metric

    @property
    def length_options(self) -> list[str]:
        """Options that say how long an input may be and what becomes of longer rows, those that there are."""
        return [name for name in ("max_length", "on_long") if hasattr(self.options, name)]

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return int(getattr(self.options, self.length_options[0]))

    # -- data ---------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self, splits: Mapping[str, Dataset], say: Say) -> dict[str, Dataset]:
        """Find the columns, learn labels and problem kind from `train`, return canonical rows.

        Every returned split keeps the `row` column. Raises `InputError` naming split, row and column.
        """

    @abstractmethod
    def inputs(self, data: Dataset, *, labelled: bool) -> Dataset:
        """Canonical rows of new data for a restored task; with `labelled`, labels are required."""

    @abstractmethod
    def input_columns(self) -> list[str]:
        """Columns of raw data that `inputs` reads besides labels."""

    def input_problem(self, texts: Sequence[str]) -> str | None:
        """Why nothing can be predicted for a raw row with these texts of `input_columns`; None if it can."""
        return None

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What `prepare` learned, as plain JSON, saved with the model."""

    @abstractmethod
    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take back what `facts` returned."""

    @abstractmethod
    def row_text(self, row: Mapping[str, Any]) -> str:
        """Text that identifies a canonical row, for duplicate and leakage checks."""

    @abstractmethod
    def row_label(self, row: Mapping[str, Any]) -> str | None:
        """Label of a canonical row in readable form, for balance, conflicts and stratified splits.

        None where labels are not classes.
        """

    def row_group(self, row: Mapping[str, Any]) -> str | None:
        """What ties canonical rows together (a shared text) that must not be split apart; None if nothing does."""
        return None

    def row_inputs(self, row: Mapping[str, Any]) -> list[str]:
        """Texts of a canonical row, as `from_texts` takes them, for a command to paste."""
        return [self.row_text(row)]

    def from_texts(self, texts: Sequence[str]) -> dict[str, Any]:
        """A raw data row made of the texts of `predict --text`, by default one for each of `input_columns`.

        Raises `InputError` where their number does not fit.
        """
        columns = self.input_columns()
        if len(texts) != len(columns):
            raise InputError(f"--text: this run takes {len(columns)} ({' and '.join(columns)}), not {len(texts)}.")
        return dict(zip(columns, texts, strict=True))

    def findings(self, rows: Mapping[str, Dataset]) -> list[Finding]:
        """What `check` reports about the splits beyond what all tasks have in common; nothing by default."""
        return []

    def details(self, rows: Mapping[str, Dataset], processor: Any) -> dict[str, dict[str, str]]:
        """Tables that `check` shows besides: title to what and value; none by default."""
        return {}

    def unusable(self, data: Dataset) -> dict[int, str]:
        """Positions of rows of new data that `inputs` can't read, and why, beyond empty cells; none by default."""
        return {}

    def encoded_findings(self, encoded: Mapping[str, Dataset]) -> list[Finding]:
        """The same about model inputs (what was cut of a target, say); nothing by default."""
        return []

    # -- model --------------------------------------------------------------------------------

    auto_class: ClassVar[str]
    """Name of the transformers Auto class whose models fit this task."""

    @abstractmethod
    def config_overrides(self) -> dict[str, Any]:
        """Model configuration that the data decide: `num_labels`, `id2label`, `problem_type`, ..."""

    def check_config(self, config: Any) -> None:
        """Raise `InputError` if a model of this configuration can't do the task: too few positions, by default."""
        from nlp_finetune.models.tokenizer import check_length

        for name, value in ((option, getattr(self.options, option)) for option in self.length_options):
            if isinstance(value, int):
                check_length(config, option=f"task.{name}", tokens=value)

    def processor(self, checkpoint: Checkpoint, *, tokenizer: str | None, rows: Dataset, config: Any, say: Say) -> Any:
        """What turns canonical rows into model inputs: `model.tokenizer`, by default; may be fitted on `rows`.

        `config` may be completed in place. Raises `InputError` where the checkpoint brings none.
        """
        from nlp_finetune.models.tokenizer import load_tokenizer

        texts = partial(map, self.row_text, rows)
        return load_tokenizer(checkpoint, tokenizer=tokenizer, texts=texts, config=config, say=say)

    def saved_processor(self, folder: Path) -> Any:
        """The processor that a run saved beside its model; raises `InputError` where it is missing or damaged."""
        from nlp_finetune.models.tokenizer import load_saved_tokenizer

        return load_saved_tokenizer(folder)

    def processor_key(self, processor: Any) -> list[Any]:
        """What of the processor decides about `encode`, as plain JSON: part of the name of cached rows."""
        from nlp_finetune.models.tokenizer import content

        return content(processor)

    def probe_inputs(self, processor: Any) -> dict[str, torch.Tensor] | None:
        """Model inputs of a few rows, to estimate memory with; None for a model that reads token ids."""
        return None

    def check_format(self, save_format: str, config: Any) -> None:
        """Raise `InputError` where `model.save_format` can't hold a model of this configuration."""
        if save_format == "timm":
            raise InputError("model.save_format timm: for image models only; leave it at auto.")

    def saved(self, folder: Path, save_format: str) -> None:  # noqa: B027  optional
        """Turn the files of a saved model into `model.save_format`, in place, or add what other programs need.

        By default there is one format and nothing to add.
        """

    def complete_model(self, model: Any, say: Say) -> None:  # noqa: B027  optional
        """Set what is saved with a loaded model beside its weights (how it generates, say); nothing by default."""

    @abstractmethod
    def encode(self, rows: Mapping[str, list[Any]], processor: Any) -> dict[str, list[Any]]:
        """Canonical rows (a batch, column-wise) to model inputs, with `length` (tokens) and `source`.

        May return more rows than it was given (windows), or none for a row (`merge` then gets no window):
        `source` holds, for each output, the position in the batch of the row it comes from; a list of
        positions where an output packs several rows, and its prediction is a list too, with one for each.
        """

    def transform(self, processor: Any, *, change: ImageChange | None = None) -> Transform | None:
        """What happens to encoded rows on their way into a batch (masking, reading an image); None by default.

        What it draws is another in each epoch of training and fixed by row elsewhere. `change` is what `augment`
        does to training images.
        """
        return None

    def changed(self, row: Mapping[str, Any], change: TextChange, random: np.random.Generator) -> dict[str, Any]:
        """A canonical training row with its `changeable_texts` changed, and what points into them moved along."""
        texts = {name: row[name] for name in self.changeable_texts if row.get(name)}
        return {**row, **{name: change.text(text, random) for name, text in texts.items()}}

    @abstractmethod
    def token_lengths(self, rows: Mapping[str, list[Any]], processor: Any) -> list[int]:
        """Length in tokens of each canonical row before anything is cut."""

    @abstractmethod
    def collator(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """Function from encoded rows to one padded batch of tensors."""

    def has_labels(self, batch: Mapping[str, Any]) -> bool:
        """Whether a batch holds what the objective learns from."""
        return "labels" in batch

    def model_inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What the model takes of a batch; the rest is for the objective and for `predictions`."""
        return {name: value for name, value in batch.items() if name != "labels"}

    def outputs(self, model: Any, batch: Mapping[str, Any], processor: Any, *, known: Any) -> Any:
        """What `predictions` reads in inference; `known` is what the objective gave, None where it was not asked.

        By default that, or a forward pass; tasks that are measured by what they write generate here.
        """
        return model(**self.model_inputs(batch)) if known is None else known

    # -- learning -----------------------------------------------------------------------------

    @abstractmethod
    def losses(self) -> tuple[str, ...]:
        """Names of the losses that fit what `prepare` learned, the default first."""

    @abstractmethod
    def objective(self, loss: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Any]]:
        """Build `(model, batch, num_items) -> (loss, outputs)` from a loss of `learning.losses`."""

    @abstractmethod
    def count_items(self, batch: Mapping[str, Any]) -> int:
        """Number of items that the loss of this micro batch sums over."""

    # -- results ------------------------------------------------------------------------------

    @abstractmethod
    def predictions(self, outputs: Any, batch: Mapping[str, Any]) -> list[Any]:
        """One small picklable prediction per row of the batch (numpy, never whole logits of text)."""

    def merge(self, windows: list[Any]) -> Any:
        """One prediction from those of a row's windows, in order; the first by default."""
        return windows[0]

    def tune(self, predictions: Sequence[Any], rows: Dataset) -> None:  # noqa: B027  optional
        """Learn decision thresholds from validation predictions; nothing by default.

        Done anew at every evaluation, so that the best checkpoint is the one that is best as it will be used.
        """

    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """Names that `metrics` will give, known once `prepare` has run; `train.metric` is one of them or `loss`."""

    @abstractmethod
    def metrics(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, float]:
        """Plain-named metrics of predictions, in the order of the canonical rows."""

    def resampled_metric(self, name: str, predictions: Sequence[Any], rows: Dataset) -> Callable[[np.ndarray], float]:
        """Function from row positions to the metric of those rows, for bootstrap intervals."""
        return lambda positions: self.metrics([predictions[i] for i in positions], rows.select(positions))[name]

    def baselines(self, rows: Mapping[str, Dataset]) -> dict[str, dict[str, dict[str, float]]]:
        """Metrics of simple rivals trained on `train`, by the other splits and their names; none by default."""
        return {}

    def encoded_baselines(self, encoded: Mapping[str, Dataset]) -> dict[str, dict[str, dict[str, float]]]:
        """The same for rivals that learn from model inputs (token counts, say); none by default."""
        return {}

    def row_scores(self, predictions: Sequence[Any], rows: Dataset) -> RowScores | None:
        """What each row adds to a score, for scores by length and for comparing runs row by row.

        None, the default, where the metric is no mean over rows of anything.
        """
        return None

    def evidence(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, Any]:
        """What stands behind the metrics, as plain JSON for reports and model cards; nothing by default.

        Of `classes`, `confusion`, `calibration`, `mistakes` and others that `metrics.details` describes,
        those that make sense for the task. Wrong rows in `mistakes` are the most confident, or worst, first.
        """
        return {}

    @abstractmethod
    def decode(self, predictions: Sequence[Any], rows: Dataset) -> list[dict[str, Any]]:
        """One JSON object a row, in the words of the user's data."""

    def answers(self, scorer: Scorer, rows: Dataset) -> list[dict[str, Any]]:
        """One JSON object a row of new data; by default what `decode` makes of the predictions.

        Tasks whose answers are not scores (generated text) ask `scorer` for the model instead.
        """
        return self.decode(scorer.predictions(rows), rows)

    @abstractmethod
    def example(self) -> dict[str, Any]:
        """A raw data row that this task takes, for documentation and tests."""


def names() -> list[str]:
    """Names of all tasks: the files of this folder, without this one and what tasks share (`_NAME.py`)."""
    import nlp_finetune.tasks as folder

    found = (module.name for module in pkgutil.iter_modules(folder.__path__))
    return sorted(name for name in found if name != "base" and not name.startswith("_"))


def find(name: str) -> type[BaseTask]:
    """Class of the task called `name`; the caller has checked that it is one of `names()`."""
    task: type[BaseTask] = importlib.import_module(f"nlp_finetune.tasks.{name}").Task
    return task


def options_of(name: str) -> type[TaskOptions]:
    """Options class of a task, for the loader of recipes."""
    return find(name).Options
