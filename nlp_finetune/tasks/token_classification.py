"""Token classification: named entities and the like, in words or Chinese characters.

Canonical rows: `row`, `text` (str), `starts` and `ends` (characters of each word in it), `listed` (whether
the row came as a list of words) and `tags` (one a word, numbers of `data.tags`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from nlp_finetune.data import tagged
from nlp_finetune.data import tags as iob2
from nlp_finetune.data.texts import describe_columns
from nlp_finetune.data.words import Split
from nlp_finetune.errors import InputError
from nlp_finetune.tasks.base import BaseTask, Say, TaskOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

    from nlp_finetune.augment.texts import TextChange
    from nlp_finetune.metrics.details import RowScores

_SEPARATOR = " + "


class TokenClassificationOptions(TaskOptions):
    """Options of token classification."""

    name: Literal["token_classification"] = "token_classification"
    text: str | None = Field(default=None, description="Column with lists of words, or with texts; null = by name.")
    label: str | None = Field(
        default=None, description="Column with a tag for every word, or with marked spans; null = by name."
    )
    split: Split | None = Field(
        default=None,
        description="What has a tag: words, or single characters; null = characters where the data list characters.",
    )
    tag_names: list[str] | None = Field(
        default=None, min_length=2, description="Names of the tags, where the data have numbers without names."
    )
    bad_tags: Literal["error", "repair"] = Field(
        default="error",
        description="What becomes of a tag that breaks its scheme (an I- that continues nothing, say): stop, or read "
        "it as the beginning of an entity.",
    )
    max_length: int = Field(
        default=256, ge=8, description="Tokens of one window, special tokens included; longer rows have several."
    )
    stride: int | None = Field(
        default=None, ge=0, description="Tokens that neighbouring windows share; null = a quarter of `max_length`."
    )

    @model_validator(mode="after")
    def _refuse_wide_stride(self) -> TokenClassificationOptions:
        if self.stride is not None and self.stride > self.max_length // 3:
            # Special tokens take their share, and a window must get on by more than it repeats.
            text = f"{self.stride} is more than a third of max_length, which is {self.max_length}"
            raise PydanticCustomError("conflict", "{text}", {"text": text, "conflicts": [("stride", text)]})
        return self


class Task(BaseTask):
    """A tag for every word, from the first of the pieces that the tokenizer cuts it into."""

    Options: ClassVar[type[TaskOptions]] = TokenClassificationOptions
    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    metric = "f1"
    cuts_long_rows = False
    label_separator = _SEPARATOR
    changeable_texts = ("text",)
    keeps_needed: ClassVar[frozenset[str]] = frozenset({"label", "spans", "words"})
    options: TokenClassificationOptions

    def __init__(self, options: TokenClassificationOptions) -> None:
        super().__init__(options)
        self.text, self.label = options.text, options.label
        self.split: Split = options.split or "words"
        self.types: list[str] = []

    # -- data ---------------------------------------------------------------------------------

    def prepare(self, splits: Mapping[str, Dataset], say: Say) -> dict[str, Dataset]:
        train = splits["train"]
        self.text, self.label = tagged.find(train, self.options.text, self.options.label)
        self.split = self.options.split or tagged.unit(train, self.text)
        labelled = {}
        for name, data in splits.items():
            if name == "test" and not tagged.has_labels(data, self.label):
                say("test: no tags; it is left out (predict takes such files)")
            else:
                labelled[name] = data
        words = {name: self._words(data, name, self.text, self.label) for name, data in labelled.items()}
        scheme, tags = self._tags(labelled, words, self.label)
        self.types = iob2.types(sequence for split in tags.values() for sequence in split)
        if not self.types:
            raise InputError(f"no entity in column {self.label!r}: every tag is O, so there is nothing to learn.")
        say(
            f"text: {self.text} ({self.split}); label {self.label}: {scheme}, {len(self.types)} types "
            f"({', '.join(self.types)}) -> token_classification in IOB2"
        )
        rows = {name: self._canonical(words[name], tags[name], name) for name in labelled}
        return {name: _with_words(data, name, say) for name, data in rows.items()}

    @property
    def _stride(self) -> int:
        return self.options.max_length // 4 if self.options.stride is None else self.options.stride

    def _words(self, data: Dataset, split: str, text: str, label: str | None) -> tagged.Words:
        if label is not None and label not in data.column_names:
            raise InputError(f"{split}: no column {label!r}. {describe_columns(data)}")
        spaced = label is not None and tagged.has_spaced_tags(data, label)
        return tagged.read_words(data, text, split, unit=self.split, spaced=spaced)

    def _tags(
        self, splits: Mapping[str, Dataset], words: Mapping[str, tagged.Words], column: str
    ) -> tuple[str, dict[str, list[list[str]]]]:
        """What the labels are written in, and IOB2 tags of every split."""
        if any(tagged.marks_spans(data, column) for data in splits.values()):
            return "spans", {n: tagged.read_spans(data, column, n, words[n]) for n, data in splits.items()}
        names = self.options.tag_names
        read = {n: tagged.read_tags(data, column, n, words[n], names=names) for n, data in splits.items()}
        described = [
            iob2.TaggedRows(n, words[n].rows, [words[n].of(i) for i in range(len(tags))], tags)
            for n, tags in read.items()
        ]
        scheme, converted = iob2.to_iob2(described, repair=self.options.bad_tags == "repair")
        return scheme, dict(zip(read, converted, strict=True))

    def _canonical(self, words: tagged.Words, tags: list[list[str]] | None, split: str) -> Dataset:
        from datasets import Dataset

        columns: dict[str, list[Any]] = {
            "row": words.rows,
            "text": words.texts,
            "starts": [[start for start, _ in offsets] for offsets in words.offsets],
            "ends": [[end for _, end in offsets] for offsets in words.offsets],
            "listed": words.listed,
        }
        if tags is not None:
            numbers = {name: number for number, name in enumerate(iob2.names(self.types))}
            for row, sequence in zip(words.rows, tags, strict=True):
                if not set(sequence) <= set(numbers):
                    odd = next(tag for tag in sequence if tag not in numbers)
                    raise InputError(
                        f"{split}: row {row} has an entity of type {iob2.parts(odd)[1]!r}; "
                        f"the model knows {', '.join(self.types)}."
                    )
            columns["tags"] = [[numbers[tag] for tag in sequence] for sequence in tags]
        return Dataset.from_dict(columns)

    def inputs(self, data: Dataset, *, labelled: bool) -> Dataset:
        # A file need not be written like the training data: these may have had word lists, it has texts.
        known = [name if name in data.column_names else None for name in (self.text, self.label)]
        if not labelled:
            words = self._words(data, "input", known[0] or tagged.find_text(data, known[1]), None)
            return self._canonical(words, None, "input")
        text, label = tagged.find(data, *known)
        words = self._words(data, "input", text, label)
        tags = self._tags({"input": data}, {"input": words}, label)[1]["input"]
        return self._canonical(words, tags, "input")

    def input_columns(self) -> list[str]:
        return [str(self.text)]

    def facts(self) -> dict[str, Any]:
        return {"types": self.types, "text": self.text, "label": self.label, "split": self.split}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.types, self.split = list(facts["types"]), facts["split"]
        self.text, self.label = facts["text"], facts["label"]

    def row_text(self, row: Mapping[str, Any]) -> str:
        return str(row["text"])

    def row_label(self, row: Mapping[str, Any]) -> str | None:
        """Types of the entities in the row: for balance, strata, and repeated texts with other entities."""
        return _SEPARATOR.join(self.types[kind] for kind in sorted({kind for _, _, kind in iob2.entities(row["tags"])}))

    # -- model --------------------------------------------------------------------------------

    def config_overrides(self) -> dict[str, Any]:
        names = iob2.names(self.types)
        return {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: number for number, name in enumerate(names)},
        }

    def encode(self, rows: Mapping[str, list[Any]], processor: Any) -> dict[str, list[Any]]:
        from nlp_finetune.data import pieces

        spaced = self.split == "characters"
        return pieces.encode(rows, processor, max_length=self.options.max_length, stride=self._stride, spaced=spaced)

    def changed(self, row: Mapping[str, Any], change: TextChange, random: np.random.Generator) -> dict[str, Any]:
        """Words outside of entities changed, each in its place: its tag stays its own."""
        from nlp_finetune.augment.words import join, of_places

        outside = row["tags"] if "tags" in row else [0] * len(row["starts"])
        places = zip(row["starts"], row["ends"], outside, strict=True)
        words = of_places(row["text"], [(start, end, tag != 0) for start, end, tag in places])
        text, moved = join(change.words(words, random))
        return {**row, "text": text, "starts": [start for start, _ in moved], "ends": [end for _, end in moved]}

    def token_lengths(self, rows: Mapping[str, list[Any]], processor: Any) -> list[int]:
        from nlp_finetune.data import pieces

        return pieces.lengths(rows, processor, spaced=self.split == "characters")

    def collator(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        from nlp_finetune.data import pieces

        return pieces.WordCollator(processor)

    def model_inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in batch.items() if name not in ("labels", "words", "covered")}

    # -- learning -----------------------------------------------------------------------------

    def losses(self) -> tuple[str, ...]:
        return ("cross_entropy", "focal")

    def objective(self, loss: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Any]]:
        def objective(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[torch.Tensor, Any]:
            outputs = model(**self.model_inputs(batch))
            return loss(outputs.logits, batch["labels"]) / num_items, outputs

        return objective

    def count_items(self, batch: Mapping[str, Any]) -> int:
        """Words with a tag."""
        return int((batch["words"] >= 0).sum())

    # -- results ------------------------------------------------------------------------------

    def predictions(self, outputs: Any, batch: Mapping[str, Any]) -> list[Any]:
        from nlp_finetune.data import pieces

        return list(pieces.word_tags(outputs.logits, batch))

    def merge(self, windows: list[Any]) -> Any:
        from nlp_finetune.data import pieces

        return pieces.merged(windows)

    def metric_names(self) -> tuple[str, ...]:
        from nlp_finetune.metrics import entities

        return entities.names(self.types)

    def metrics(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, float]:
        from nlp_finetune.metrics import entities

        return entities.scores(rows["tags"][:], _predicted_tags(predictions, rows), self.types)

    def resampled_metric(self, name: str, predictions: Sequence[Any], rows: Dataset) -> Callable[[np.ndarray], float]:
        from nlp_finetune.metrics import entities

        return entities.resampled(name, rows["tags"][:], _predicted_tags(predictions, rows), self.types)

    def row_scores(self, predictions: Sequence[Any], rows: Dataset) -> RowScores:
        from nlp_finetune.metrics import entity_details

        return entity_details.scores_of_rows(rows["tags"][:], _predicted_tags(predictions, rows), len(self.types))

    def evidence(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, Any]:
        from nlp_finetune.data import pieces
        from nlp_finetune.metrics import entity_details

        words, tags = _all_words(rows), _predicted_tags(predictions, rows)
        sure = [pieces.whole(found, len(row))[1] for found, row in zip(predictions, words, strict=True)]
        return entity_details.details(rows["tags"][:], tags, sure, self.types, words=words, rows=rows["row"][:])

    def baselines(self, rows: Mapping[str, Dataset]) -> dict[str, dict[str, dict[str, float]]]:
        """A dictionary of the training entities."""
        from nlp_finetune.metrics import entities

        words = {name: _all_words(data) for name, data in rows.items()}
        train = rows["train"]["tags"][:]
        scores = {}
        for name in rows:
            if name != "train":
                found = entities.dictionary(words["train"], train, words[name], len(self.types))
                scores[name] = {"dictionary": entities.scores(rows[name]["tags"][:], found, self.types)}
        return scores

    def decode(self, predictions: Sequence[Any], rows: Dataset) -> list[dict[str, Any]]:
        from nlp_finetune.data import pieces

        pairs = zip(predictions, rows, strict=True)
        return [{"spans": pieces.spans(found, row, self.types)} for found, row in pairs]

    def example(self) -> dict[str, Any]:
        return {"text": "Ada Byron lived in London.", "spans": [{"start": 0, "end": 9, "label": "PER"}]}


def _with_words(rows: Dataset, split: str, say: Say) -> Dataset:
    """Rows that have any word; there is nothing to learn from or to score in the others."""
    kept = [i for i, starts in enumerate(rows["starts"][:]) if starts]
    if not kept:
        raise InputError(f"{split}: no row has any words.")
    if len(kept) < len(rows):
        say(f"{split}: {len(rows) - len(kept)} rows without words are left out")
    return rows.select(kept) if len(kept) < len(rows) else rows


def _all_words(rows: Dataset) -> list[list[str]]:
    columns = [rows[name][:] for name in ("text", "starts", "ends")]
    return [[text[a:b] for a, b in zip(starts, ends, strict=True)] for text, starts, ends in zip(*columns, strict=True)]


def _predicted_tags(predictions: Sequence[Any], rows: Dataset) -> list[list[int]]:
    """Valid tags of all words of every row."""
    from nlp_finetune.data import pieces

    counts = [len(starts) for starts in rows["starts"][:]]
    return [iob2.repaired(pieces.whole(found, n)[0]) for found, n in zip(predictions, counts, strict=True)]
