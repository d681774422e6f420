"""Text embedding: a vector for each text, near those of texts that mean the same.

Canonical rows: `text`, `text_pair`, for triplets `negative`, for scored pairs `score`, and `row`. A prediction
is an array `[1]` with the cosine of a scored pair, else the unit vectors of the row's texts `[texts, width]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from nlp_finetune.data import text_pairs
from nlp_finetune.data.text_pairs import TEXT_IDS, TEXTS_A_ROW, OnLong
from nlp_finetune.errors import InputError
from nlp_finetune.tasks.base import BaseTask, Say, TaskOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

_SCALE = 20.0
_METRICS = {"scored": ("spearman", "pearson"), "positive": ("recall_at_1", "recall_at_5", "recall_at_10", "mrr")}
"""What is measured for each kind of pairs; the first picks the best checkpoint."""
_LOSSES = {"scored": ("mse", "huber"), "positive": ("cross_entropy",)}


class TextEmbeddingOptions(TaskOptions):
    """Options of text embedding."""

    columns: ClassVar[tuple[str, ...]] = ("text", "negative", "label", "score_range")

    name: Literal["text_embedding"] = "text_embedding"
    text: list[str] | None = Field(
        default=None, min_length=2, max_length=2, description="The two columns of texts; null = by name."
    )
    negative: str | None = Field(
        default=None, description="Column of texts unlike the first, for triplets; null = by name, or none."
    )
    label: str | None = Field(
        default=None, description="Column of scores: how alike the texts are; null = by name, or none."
    )
    score_range: list[float] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="Scores that mean cosine 0 and 1; null = 0 and 1, or the extremes in the training rows.",
    )
    scale: float = Field(
        default=_SCALE, gt=0, description="Factor of the cosines in the softmax over in-batch candidates."
    )
    pooling: Literal["mean", "cls"] = Field(
        default="mean", description="Vector of a text: the mean of its tokens' vectors, or that of the first token."
    )
    max_length: int = Field(default=128, ge=4, description="Longest text in tokens, special tokens included.")
    on_long: OnLong = Field(default="truncate", description="What happens to longer texts: cut the end, or stop.")


class Task(BaseTask):
    """A bi-encoder: one backbone reads every text on its own; there is no head."""

    Options: ClassVar[type[TaskOptions]] = TextEmbeddingOptions
    auto_class: ClassVar[str] = "AutoModel"
    runs_once: ClassVar[bool] = False
    changeable_texts = text_pairs.SIDES
    options: TextEmbeddingOptions

    def __init__(self, options: TextEmbeddingOptions) -> None:
        super().__init__(options)
        self.columns = text_pairs.Columns(["text", "text_pair"], options.negative, options.label)
        self.range = (0.0, 1.0)

    @property
    def metric(self) -> str:  # type: ignore[override]
        return _METRICS[self.columns.kind][0]

    @property
    def couples_rows(self) -> str | None:  # type: ignore[override]
        if self.columns.kind == "scored":
            return None
        return "each pair is set against the other pairs of its micro batch (in-batch negatives)"

    @property
    def fewest_rows(self) -> int:  # type: ignore[override]
        return 2 if self.columns.kind == "positive" else 1

    # -- data ---------------------------------------------------------------------------------

    def prepare(self, splits: Mapping[str, Dataset], say: Say) -> dict[str, Dataset]:
        options = self.options
        self.columns = columns = text_pairs.find(
            splits["train"], text=options.text, negative=options.negative, label=options.label
        )
        self._refuse_unused()
        rows = {}
        for name, data in splits.items():
            if name == "test" and columns.score is not None and not text_pairs.has_scores(data, columns.score):
                say("test: no scores; it is left out (predict takes such files)")
            else:
                rows[name] = text_pairs.read(data, columns, name, labelled=True)
        texts = " + ".join(columns.pair)
        if columns.kind == "scored":
            scores = rows["train"]["score"]
            self.range = text_pairs.score_range(scores, options.score_range, rows["train"]["row"])
            low, high = self.range
            say(
                f"text: {texts}; {columns.score}: scores from {min(scores):g} to {max(scores):g}; "
                f"{low:g} means cosine 0, {high:g} cosine 1"
            )
        else:
            unlike = f"; unlike the first: {columns.negative}" if columns.negative else ""
            say(f"text: {texts}, no scores: all pairs belong together, other rows' do not{unlike}")
        from datasets import Dataset

        return {name: Dataset.from_dict(columns) for name, columns in rows.items()}

    def _refuse_unused(self) -> None:
        """No option is accepted and ignored."""
        if self.columns.kind == "scored" and self.options.scale != _SCALE:
            raise InputError("task.scale: pairs with scores have no in-batch negatives; leave it out.")
        if self.columns.kind == "positive" and self.options.score_range is not None:
            raise InputError("task.score_range: there is no column of scores; set task.label=COLUMN, or leave it out.")

    def inputs(self, data: Dataset, *, labelled: bool) -> Dataset:
        from datasets import Dataset

        return Dataset.from_dict(text_pairs.read(data, self.columns, "input", labelled=labelled))

    def input_columns(self) -> list[str]:
        return self.columns.pair

    def from_texts(self, texts: Sequence[str]) -> dict[str, Any]:
        if len(texts) > 2:
            raise InputError(f"--text: one text gives its vector, two give their cosine; not {len(texts)}.")
        return dict(zip(self.columns.pair, texts, strict=False))

    def facts(self) -> dict[str, Any]:
        return {"columns": asdict(self.columns), "score_range": list(self.range)}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.columns = text_pairs.Columns(**facts["columns"])
        low, high = facts["score_range"]
        self.range = (low, high)

    def row_text(self, row: Mapping[str, Any]) -> str:
        return "\n".join(row[side] for side in text_pairs.SIDES if side in row)

    def row_inputs(self, row: Mapping[str, Any]) -> list[str]:
        return [row["text"], row["text_pair"]]

    def row_label(self, row: Mapping[str, Any]) -> str | None:
        return None

    def row_group(self, row: Mapping[str, Any]) -> str | None:
        return None if self.columns.kind == "scored" else str(row["text"])

    # -- model --------------------------------------------------------------------------------

    def config_overrides(self) -> dict[str, Any]:
        return {}

    def check_config(self, config: Any) -> None:
        if getattr(config, "is_encoder_decoder", False) or not hasattr(config, "vocab_size"):
            raise InputError(
                f"model type {config.model_type} is no encoder of texts, whose tokens could be averaged. Take BERT or "
                "one of its relatives."
            )

    def saved(self, folder: Path, save_format: str) -> None:
        from nlp_finetune.models.embeddings import save_for_sentence_transformers

        options = self.options
        save_for_sentence_transformers(folder, pooling=options.pooling, max_length=options.max_length)

    def encode(self, rows: Mapping[str, list[Any]], processor: Any) -> dict[str, list[Any]]:
        options = self.options
        encoded = text_pairs.encode(rows, processor, max_length=options.max_length, on_long=options.on_long)
        if "score" in rows:
            low, high = self.range
            encoded["labels"] = [(score - low) / (high - low) for score in rows["score"]]
        return encoded

    def token_lengths(self, rows: Mapping[str, list[Any]], processor: Any) -> list[int]:
        return text_pairs.token_lengths(rows, processor)

    def collator(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        return text_pairs.TextsCollator(processor)

    def has_labels(self, batch: Mapping[str, Any]) -> bool:
        return "labels" in batch if self.columns.kind == "scored" else batch[TEXTS_A_ROW] > 1

    def model_inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in batch.items() if name not in ("labels", TEXT_IDS, TEXTS_A_ROW)}

    # -- learning -----------------------------------------------------------------------------

    def losses(self) -> tuple[str, ...]:
        return _LOSSES[self.columns.kind]

    def _vectors(self, outputs: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        """Unit vectors `[rows, texts, width]`."""
        from nlp_finetune.models.embeddings import pool

        found = pool(outputs.last_hidden_state, batch["attention_mask"], pooling=self.options.pooling)
        return found.view(-1, batch[TEXTS_A_ROW], found.shape[-1])

    def objective(self, loss: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Any]]:
        from nlp_finetune.models.embeddings import in_batch_loss, scored_loss

        def objective(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[torch.Tensor, Any]:
            outputs = model(**self.model_inputs(batch))
            vectors = self._vectors(outputs, batch)
            if self.columns.kind == "scored":
                return scored_loss(loss, vectors, batch["labels"]) / num_items, outputs
            return in_batch_loss(loss, vectors, batch[TEXT_IDS], scale=self.options.scale) / num_items, outputs

        return objective

    def count_items(self, batch: Mapping[str, Any]) -> int:
        return len(batch[TEXT_IDS])

    # -- results ------------------------------------------------------------------------------

    def predictions(self, outputs: Any, batch: Mapping[str, Any]) -> list[Any]:
        vectors = self._vectors(outputs, batch)
        if self.columns.kind == "scored" and batch[TEXTS_A_ROW] > 1:
            vectors = (vectors[:, 0] * vectors[:, 1]).sum(-1, keepdim=True)
        return list(vectors.cpu().numpy())

    def metric_names(self) -> tuple[str, ...]:
        return _METRICS[self.columns.kind]

    def metrics(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, float]:
        import numpy as np

        return self._measure(predictions, rows)(np.arange(len(rows)))

    def resampled_metric(self, name: str, predictions: Sequence[Any], rows: Dataset) -> Callable[[np.ndarray], float]:
        measure = self._measure(predictions, rows)
        return lambda positions: measure(positions)[name]

    def _measure(self, predictions: Sequence[Any], rows: Dataset) -> Callable[[np.ndarray], dict[str, float]]:
        """Function from row positions to metrics; candidates are those of all rows."""
        import numpy as np

        from nlp_finetune.metrics import retrieval

        stacked = np.stack(predictions)
        if self.columns.kind == "scored":
            return self._correlate(stacked[:, 0], rows)
        among = self._candidates(rows)
        offered = np.concatenate([stacked[:, side] for side in range(1, stacked.shape[1])])[among.rows]
        ranks = retrieval.ranks(lambda part: stacked[part, 0] @ offered.T, among)
        return lambda positions: retrieval.scores(ranks[positions])

    def _correlate(self, cosines: np.ndarray, rows: Dataset) -> Callable[[np.ndarray], dict[str, float]]:
        import numpy as np

        from nlp_finetune.metrics.regression import regression

        scores = np.asarray(rows["score"][:])

        def measure(positions: np.ndarray) -> dict[str, float]:
            found = regression(cosines[positions], scores[positions])
            return {name: found[name] for name in _METRICS["scored"]}

        return measure

    def _candidates(self, rows: Dataset) -> Any:
        from nlp_finetune.metrics import retrieval

        negatives = rows["negative"][:] if "negative" in rows.column_names else []
        return retrieval.candidates(rows["text"][:], rows["text_pair"][:], negatives)

    def baselines(self, rows: Mapping[str, Dataset]) -> dict[str, dict[str, dict[str, float]]]:
        import numpy as np

        from nlp_finetune.metrics import overlap, retrieval

        train = [*rows["train"]["text"][:], *rows["train"]["text_pair"][:]]
        found: dict[str, dict[str, dict[str, float]]] = {}
        for name, data in rows.items():
            if name == "train":
                continue
            everything = np.arange(len(data))
            first, *others = (data[side][:] for side in text_pairs.SIDES if side in data.column_names)
            if self.columns.kind == "scored":
                cosines = overlap.cosines(*overlap.word_vectors(train, first, others[0]))
                rivals = {"tfidf": cosines, "shared_words": overlap.shared_words(first, others[0])}
                found[name] = {rival: self._correlate(scores, data)(everything) for rival, scores in rivals.items()}
            else:
                offered = [text for side in others for text in side]
                ranks = retrieval.overlap_ranks(train, first, offered, self._candidates(data))
                found[name] = {"tfidf": retrieval.scores(ranks)}
        return found

    def decode(self, predictions: Sequence[Any], rows: Dataset) -> list[dict[str, Any]]:
        """The cosine of a pair, or the unit vector of a single text."""
        decoded: list[dict[str, Any]] = []
        for found in predictions:
            if found.ndim == 1:
                decoded.append({"similarity": float(found[0])})
            elif len(found) == 1:
                decoded.append({"vector": [float(number) for number in found[0]]})
            else:
                decoded.append({"similarity": float(found[0] @ found[1])})
        return decoded

    def example(self) -> dict[str, Any]:
        return {"sentence1": "The soup was worth the wait.", "sentence2": "It paid to wait for the soup.", "score": 0.9}
