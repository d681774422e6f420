"""Masked language modelling: predict hidden tokens; prediction fills the masks of a text.

Canonical rows: `text` and `row`. A prediction is an array of sums over the row's hidden tokens:
negative log likelihood, tokens, tokens predicted right. Training hides other tokens in every epoch;
elsewhere the same ones are hidden each time.

`pseudo_perplexity` is the exponential of the loss of the hidden tokens, which are hidden all at once: that of
Salazar et al. (2020, Masked Language Model Scoring), who hide one at a time, is lower and many times as dear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from nlp_finetune.data import ROW, documents, sequences
from nlp_finetune.errors import InputError
from nlp_finetune.tasks._language import LanguageModelTask
from nlp_finetune.tasks.base import Say, Scorer, TaskOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

    from nlp_finetune.augment.images import ImageChange
    from nlp_finetune.data.drawing import Transform

_MASKS = ("[MASK]", "<mask>")
"""How people write a mask, whatever the tokenizer calls it."""
_WINDOW = 512
"""Most tokens that a mask is filled from, also where a model could take more."""
_NO_MASK = f"nothing to fill in; write {_MASKS[0]} for each word that is to be found"


class MaskedLmOptions(TaskOptions):
    """Options of masked language modelling."""

    columns: ClassVar[tuple[str, ...]] = ("text",)

    name: Literal["masked_lm"] = "masked_lm"
    text: str | None = Field(default=None, description="Column of texts; null = by name.")
    document: Literal["auto", "line", "paragraph", "file"] = Field(
        default="auto",
        description="A document of a .txt file; auto: a paragraph where blank lines divide them, else a line.",
    )
    max_length: int = Field(default=128, ge=8, description="Longest input in tokens; longer ones become windows.")
    mask: Literal["whole_word", "token"] = Field(
        default="whole_word", description="Whether all tokens of a word are hidden together, or each on its own."
    )
    mask_probability: float = Field(default=0.15, gt=0, lt=1, description="Share of the tokens that are hidden.")
    top_k: int = Field(default=5, ge=1, description="Number of candidates that predict gives for a mask.")


class Task(LanguageModelTask):
    """An encoder that learns to predict hidden tokens; its result is a checkpoint for other tasks."""

    Options: ClassVar[type[TaskOptions]] = MaskedLmOptions
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    metric = "pseudo_perplexity"
    at_prediction = ("top_k",)
    cuts_long_rows = False
    options: MaskedLmOptions

    def __init__(self, options: MaskedLmOptions) -> None:
        super().__init__(options)
        self.text_rows = options.document
        self.layout = documents.Layout("text", {"text": "text"})

    # -- data ---------------------------------------------------------------------------------

    def prepare(self, splits: Mapping[str, Dataset], say: Say) -> dict[str, Dataset]:
        self.layout = documents.text_layout(splits["train"], self.options.text)
        say(self.layout.describe())
        return {name: self._canonical(data, name, say) for name, data in splits.items()}

    def inputs(self, data: Dataset, *, labelled: bool) -> Dataset:
        return self._canonical(data, "input", lambda line: None)

    def _canonical(self, data: Dataset, split: str, say: Say) -> Dataset:
        from datasets import Dataset

        return Dataset.from_dict(documents.read(data, self.layout, split, say=say))

    def input_columns(self) -> list[str]:
        return [self.layout.prompt]

    def input_problem(self, texts: Sequence[str]) -> str | None:
        return None if any(mask in text for text in texts for mask in _MASKS) else _NO_MASK

    def facts(self) -> dict[str, Any]:
        return {"text": self.layout.columns["text"]}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.layout = documents.Layout("text", {"text": facts["text"]})

    def row_text(self, row: Mapping[str, Any]) -> str:
        return str(row["text"])

    def row_label(self, row: Mapping[str, Any]) -> str | None:
        return None

    def row_inputs(self, row: Mapping[str, Any]) -> list[str]:
        """The first words of a text, the longest of them masked."""
        words = row["text"].split()[:10]
        words[max(range(len(words)), key=lambda i: len(words[i]))] = _MASKS[0]
        return [" ".join(words)]

    # -- model --------------------------------------------------------------------------------

    def config_overrides(self) -> dict[str, Any]:
        return {}

    def encode(self, rows: Mapping[str, list[Any]], processor: Any) -> dict[str, list[Any]]:
        from nlp_finetune.data import masking

        masking.mask_token(processor)
        return masking.windows(rows["text"], processor, max_length=self.options.max_length)

    def transform(self, processor: Any, *, change: ImageChange | None = None) -> Transform:
        from nlp_finetune.data import masking

        o = self.options
        return masking.masking(processor, probability=o.mask_probability, whole_words=o.mask == "whole_word")

    def token_lengths(self, rows: Mapping[str, list[Any]], processor: Any) -> list[int]:
        from nlp_finetune.data.texts import token_lengths

        return token_lengths(rows, processor)

    def collator(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        return sequences.SequenceCollator(processor)

    # -- learning -----------------------------------------------------------------------------

    def losses(self) -> tuple[str, ...]:
        return ("cross_entropy", "focal")

    def objective(self, loss: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Any]]:
        from nlp_finetune.models.places import logits_at

        def objective(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[torch.Tensor, Any]:
            hidden = batch["labels"] != sequences.IGNORED
            with logits_at(model, hidden):
                outputs = model(**self.model_inputs(batch))
            logits = outputs.logits if outputs.logits.dim() == 2 else outputs.logits[hidden]
            return loss(logits, batch["labels"][hidden]) / num_items, outputs

        return objective

    def count_items(self, batch: Mapping[str, Any]) -> int:
        return int((batch["labels"] != sequences.IGNORED).sum())

    # -- results ------------------------------------------------------------------------------

    def predictions(self, outputs: Any, batch: Mapping[str, Any]) -> list[Any]:
        """Sums `[3]` a window: negative log likelihood, hidden tokens, those predicted right."""
        from nlp_finetune.learning.tokens import token_sums

        return list(token_sums(outputs.logits, batch["labels"]))

    def scores(self, sums: np.ndarray) -> dict[str, float]:
        return _scores(sums)

    def metric_names(self) -> tuple[str, ...]:
        return ("pseudo_perplexity", "token_accuracy")

    def encoded_baselines(self, encoded: Mapping[str, Dataset]) -> dict[str, dict[str, dict[str, float]]]:
        """Token frequencies, which know nothing of the context."""
        from nlp_finetune.data import masking
        from nlp_finetune.metrics.language import frequencies

        tokens = {name: masking.maskable(data) for name, data in encoded.items()}
        found = frequencies(tokens.pop("train"), tokens)
        return {split: {rival: _renamed(scores) for rival, scores in by.items()} for split, by in found.items()}

    def answers(self, scorer: Scorer, rows: Dataset) -> list[dict[str, Any]]:
        """Candidates for every mask of each text, and the text with the best ones put in."""
        from nlp_finetune.models.filling import fill

        tokenizer = scorer.processor
        texts = [_with_mask(text, row, tokenizer) for text, row in zip(rows["text"][:], rows[ROW][:], strict=True)]
        return scorer.in_batches(
            [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]],
            lambda positions: fill(
                scorer.model,
                tokenizer,
                [texts[i] for i in positions],
                max_length=min(tokenizer.model_max_length, _WINDOW),
                top_k=self.options.top_k,
            ),
        )


def _with_mask(text: str, row: int, tokenizer: Any) -> str:
    """The text with its masks written as the tokenizer writes them."""
    from nlp_finetune.data.masking import mask_token

    own = mask_token(tokenizer)
    for written in _MASKS:
        text = text.replace(written, own)
    if own not in text:
        raise InputError(f"row {row}: {_NO_MASK}.")
    return text


def _scores(sums: np.ndarray) -> dict[str, float]:
    from nlp_finetune.metrics.language import language

    return _renamed(language(sums))


def _renamed(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores of a language model under this task's names."""
    return {{"perplexity": "pseudo_perplexity"}.get(name, name): value for name, value in scores.items()}
