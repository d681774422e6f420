"""Image classification: one class an image, by ResNets of torchvision, timm or transformers.

Canonical rows: `image` (mapping of `bytes` and `path`), `label` (int class), `digest` (SHA-256 of the
file), `width`, `height`, `kind`, `thumbnail` (16 x 16 pixels) and `row`. Images are decoded when they are
drawn, in the workers that load data.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from nlp_finetune.data import FOLDER, image_columns, image_rows
from nlp_finetune.data import labels as label_columns
from nlp_finetune.errors import InputError, NlpFinetuneError
from nlp_finetune.tasks.base import BaseTask, Say, TaskOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

    from nlp_finetune.augment.images import ImageChange
    from nlp_finetune.data.drawing import Transform
    from nlp_finetune.data.image_inputs import Preprocessing
    from nlp_finetune.metrics.details import RowScores
    from nlp_finetune.models.checkpoint import Checkpoint

_TOP = 5
_RIVAL_ROWS = 20_000
Share = Annotated[float, Field(gt=0, le=1)]


class ImageClassificationOptions(TaskOptions):
    """Options of image classification."""

    columns: ClassVar[tuple[str, ...]] = ("image", "label")

    name: Literal["image_classification"] = "image_classification"
    image: str | None = Field(default=None, description="Column of images or of paths to them; null = by name.")
    label: str | None = Field(default=None, description="Label column; null = by name.")
    size: Annotated[int, Field(ge=8)] | None = Field(
        default=None, description="Side in pixels of what the model sees; null = the checkpoint's, or 224."
    )
    center: Share | None = Field(
        default=None,
        description="Share of the shorter side that evaluation keeps; null = the checkpoint's, or all of it.",
    )
    on_corrupt: Literal["error", "skip"] = Field(
        default="error", description="What happens where images can't be read: stop and name them, or leave them out."
    )


class Task(BaseTask):
    """A linear head over pooled features of an image."""

    Options: ClassVar[type[TaskOptions]] = ImageClassificationOptions
    auto_class: ClassVar[str] = "AutoModelForImageClassification"
    metric = "accuracy"
    images: ClassVar[bool] = True
    mixes = "pixels"
    one_class_a_row = True
    heavy_columns: ClassVar[tuple[str, ...]] = ("image", "thumbnail")
    couples_rows: ClassVar[str | None] = "BatchNorm normalises over the images of a micro batch"
    options: ImageClassificationOptions

    def __init__(self, options: ImageClassificationOptions) -> None:
        super().__init__(options)
        self.image = options.image or "image"
        self.label = options.label or "label"
        self.names: list[str] = []
        self.preprocessing: Preprocessing | None = None
        """That of the processor which was made last."""

    @property
    def max_length(self) -> int:
        """Every image is one item."""
        return 1

    # -- data ---------------------------------------------------------------------------------

    def prepare(self, splits: Mapping[str, Dataset], say: Say) -> dict[str, Dataset]:
        train = splits["train"]
        asked = [self.options.label] if self.options.label else []
        self.image = image_columns.find(train, self.options.image, taken=asked)
        self.label = str(label_columns.find(train, self.options.label, taken=[self.image, FOLDER]))
        labelled = {}
        for name, data in splits.items():
            if name == "test" and not label_columns.has_labels(data, self.label):
                say("test: no labels; it is left out (predict takes such files)")
            else:
                labelled[name] = data
        learned = label_columns.learn(labelled, self.label, problem="single_label")
        self.names = learned.names
        say(f"image: {self.image}; label {self.label}: {len(self.names)} classes")
        return {name: self._canonical(data, name, labelled=True, say=say) for name, data in labelled.items()}

    def inputs(self, data: Dataset, *, labelled: bool) -> Dataset:
        return self._canonical(data, "input", labelled=labelled)

    def input_columns(self) -> list[str]:
        return [self.image]

    def _column(self, data: Dataset) -> str:
        """The run's column of images, or what a folder of images calls it."""
        return self.image if self.image in data.column_names else image_columns.find(data, None, taken=[self.label])

    def unusable(self, data: Dataset) -> dict[int, str]:
        return image_rows.unusable(data, self._column(data))

    def _canonical(self, data: Dataset, split: str, *, labelled: bool, say: Say = lambda _: None) -> Dataset:
        rows, kept = image_rows.read(data, self._column(data), split, on_corrupt=self.options.on_corrupt, say=say)
        if not labelled:
            return rows
        data = data.select(kept) if len(kept) < len(data) else data
        labels = label_columns.read(data, self.label, split, problem="single_label", names=self.names)
        return rows.add_column("label", labels)

    def facts(self) -> dict[str, Any]:
        return {"labels": self.names, "image": self.image, "label": self.label}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.names, self.image, self.label = list(facts["labels"]), facts["image"], facts["label"]

    def row_text(self, row: Mapping[str, Any]) -> str:
        return str(row["digest"])

    def row_label(self, row: Mapping[str, Any]) -> str | None:
        return str(self.names[row["label"]])

    def row_inputs(self, row: Mapping[str, Any]) -> list[str]:
        path = row["image"]["path"]
        return [path] if path and row["image"]["bytes"] is None else []

    def details(self, rows: Mapping[str, Dataset], processor: Any) -> dict[str, dict[str, str]]:
        return {
            "Images": {name: image_rows.describe_sizes(data) for name, data in rows.items()},
            "Transforms": image_rows.describe_transforms(processor.preprocessing),
        }

    # -- model --------------------------------------------------------------------------------

    def config_overrides(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.names),
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: i for i, name in enumerate(self.names)},
            "problem_type": "single_label_classification",
        }

    def check_format(self, save_format: str, config: Any) -> None:
        from nlp_finetune.models.resnets import SMALL_STEM, of_configuration

        kind = config.model_type
        if kind == "timm_wrapper" and importlib.util.find_spec("timm") is None:
            raise InputError(f"{config.architecture} needs timm. Run: pip install 'nlp-finetune[image]'")
        if save_format != "auto" and kind == SMALL_STEM:
            raise InputError(f"model.save_format {save_format}: can't hold the stem for small images; use auto.")
        if save_format == "timm" and of_configuration(config.to_dict()) is None:
            raise InputError(f"model.save_format timm: for ResNets of torchvision's sizes, and this {kind} is none.")
        if save_format == "transformers" and kind == "timm_wrapper":
            raise InputError(f"model.save_format transformers: can't hold {config.architecture}; leave it at auto.")

    def saved(self, folder: Path, save_format: str) -> None:
        from nlp_finetune.models import image_processor, resnet_files

        if resnet_files.is_timm(folder) or save_format == "timm":
            resnet_files.to_timm(folder, image_processor.load_saved(folder).settings())

    def processor(self, checkpoint: Checkpoint, *, tokenizer: str | None, rows: Dataset, config: Any, say: Say) -> Any:
        from nlp_finetune.models import image_processor

        if tokenizer is not None:
            raise InputError(f"model.tokenizer {tokenizer}: images have no tokens; leave it null.")
        made = image_processor.load(checkpoint, size=self.options.size, center=self.options.center)
        self.preprocessing = made.preprocessing
        return made

    def saved_processor(self, folder: Path) -> Any:
        from nlp_finetune.models import image_processor

        made = image_processor.load_saved(folder)
        self.preprocessing = made.preprocessing
        return made

    def processor_key(self, processor: Any) -> list[Any]:
        return []  # rows are encoded when they are drawn

    def probe_inputs(self, processor: Any) -> dict[str, torch.Tensor] | None:
        import torch

        # Two: BatchNorm can't train on one value a channel, which is what small images may end in.
        return {"pixel_values": torch.zeros(2, 3, *processor.preprocessing.size)}

    def encode(self, rows: Mapping[str, list[Any]], processor: Any) -> dict[str, list[Any]]:
        count = len(rows["image"])
        encoded = {"image": rows["image"], "length": [1] * count, "source": list(range(count))}
        return {**encoded, **({"labels": rows["label"]} if "label" in rows else {})}

    def transform(self, processor: Any, *, change: ImageChange | None = None) -> Transform | None:
        from nlp_finetune.data.image_inputs import ImageInputs

        return ImageInputs(processor.preprocessing, change)

    def token_lengths(self, rows: Mapping[str, list[Any]], processor: Any) -> list[int]:
        return [1] * len(rows["image"])

    def collator(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        from nlp_finetune.data.image_inputs import collate

        return collate

    def model_inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Normalised pixels, of the bytes that a batch brings."""
        assert self.preprocessing is not None
        return {"pixel_values": self.preprocessing.normalised(batch["pixel_values"])}

    # -- learning -----------------------------------------------------------------------------

    def losses(self) -> tuple[str, ...]:
        return ("cross_entropy", "focal")

    def objective(self, loss: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Any]]:
        def objective(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[torch.Tensor, Any]:
            try:
                outputs = model(**self.model_inputs(batch))
            except ValueError as error:
                if len(batch["labels"]) > 1:
                    raise
                raise NlpFinetuneError(
                    "a micro batch of one image, on which BatchNorm can't train: set train.micro_batch_size to 2 or "
                    "more, and train.batch_size to twice the number of processes or more."
                ) from error
            return loss(outputs.logits, batch["labels"]) / num_items, outputs

        return objective

    def count_items(self, batch: Mapping[str, Any]) -> int:
        return int(batch["labels"].numel())

    # -- results ------------------------------------------------------------------------------

    def predictions(self, outputs: Any, batch: Mapping[str, Any]) -> list[Any]:
        """Probabilities `[classes]` an image."""
        return list(outputs.logits.float().softmax(-1).cpu().numpy())

    def metric_names(self) -> tuple[str, ...]:
        return ("accuracy", *(["top5"] if len(self.names) > _TOP else []), "macro_f1", "mcc")

    def metrics(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, float]:
        import numpy as np

        return self._measure(np.stack(predictions), np.asarray(rows["label"]))

    def _measure(self, predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        from nlp_finetune.metrics.classification import single_label, top_k

        scores = single_label(predicted, labels)
        return scores | ({"top5": top_k(predicted, labels, k=_TOP)} if len(self.names) > _TOP else {})

    def resampled_metric(self, name: str, predictions: Sequence[Any], rows: Dataset) -> Callable[[np.ndarray], float]:
        import numpy as np

        predicted, labels = np.stack(predictions), np.asarray(rows["label"])
        return lambda positions: self._measure(predicted[positions], labels[positions])[name]

    def row_scores(self, predictions: Sequence[Any], rows: Dataset) -> RowScores:
        import numpy as np

        from nlp_finetune.metrics import details

        return details.row_scores("accuracy", np.stack(predictions).argmax(axis=1) == np.asarray(rows["label"]))

    def evidence(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, Any]:
        import numpy as np

        from nlp_finetune.metrics import details

        predicted, labels, numbers = np.stack(predictions), np.asarray(rows["label"]), rows["row"][:]
        return details.single_label(predicted, labels, self.names, text=partial(_shown, rows), rows=numbers)

    def baselines(self, rows: Mapping[str, Dataset]) -> dict[str, dict[str, dict[str, float]]]:
        import numpy as np

        from nlp_finetune.data.images import thumbnails
        from nlp_finetune.metrics import image_rivals
        from nlp_finetune.metrics.baselines import majority

        # More images make the rivals slower than they make them better.
        few = np.random.default_rng(0).permutation(len(rows["train"]))[:_RIVAL_ROWS]
        rows = {**rows, "train": rows["train"].select(few)}
        pixels = {name: thumbnails(data["thumbnail"]) for name, data in rows.items()}
        labels = {name: np.asarray(data["label"]) for name, data in rows.items()}
        found: dict[str, dict[str, dict[str, float]]] = {}
        for name in rows:
            if name == "train":
                continue
            given = (pixels["train"], labels["train"], pixels[name])
            rivals = {
                "majority": majority(labels["train"], len(self.names), len(labels[name])),
                "nearest_mean": image_rivals.nearest_mean(*given, classes=len(self.names)),
                "pixels_logistic": image_rivals.logistic(*given, classes=len(self.names)),
            }
            found[name] = {rival: self._measure(p, labels[name]) for rival, p in rivals.items() if p is not None}
        return found

    def decode(self, predictions: Sequence[Any], rows: Dataset) -> list[dict[str, Any]]:
        import numpy as np

        answers = []
        for one in predictions:
            scores = {name: float(p) for name, p in zip(self.names, one, strict=True)}
            best = self.names[int(np.argmax(one))]
            answers.append({"label": best, "score": scores[best], "scores": scores})
        return answers

    def example(self) -> dict[str, Any]:
        return {"image": "photos/0001.jpg", "label": "cat"}


def _shown(rows: Dataset, position: int) -> str:
    """What stands for an image where a text is shown."""
    return str(rows[position]["image"]["path"] or f"image of row {rows[position]['row']}")
