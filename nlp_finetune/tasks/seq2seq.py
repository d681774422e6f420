"""Sequence to sequence: a text in, a text out (summaries, translations, rewriting), by an encoder-decoder.

Canonical rows: `source`, `target`, `references` (list, the target first) and `row`. A prediction is a
`decoding.Written`: evaluation generates, and scores what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from nlp_finetune.data import source_targets
from nlp_finetune.errors import InputError
from nlp_finetune.tasks.base import BaseTask, Say, TaskOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

    from nlp_finetune.data.checks import Finding
    from nlp_finetune.metrics.details import RowScores
    from nlp_finetune.models.checkpoint import Checkpoint
    from nlp_finetune.models.decoding import Search

_SHOWN_WORDS = 40
_SAMPLE = 1000
"""Targets that are looked at to tell the script they are written in."""


class Seq2SeqOptions(TaskOptions):
    """Options of sequence-to-sequence tasks."""

    columns: ClassVar[tuple[str, ...]] = ("source", "target", "references")

    name: Literal["seq2seq"] = "seq2seq"
    source: str | None = Field(default=None, description="Column of the texts that are read; null = by name.")
    target: str | None = Field(default=None, description="Column of the texts to be written; null = by name.")
    references: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Columns of several references, where a split has them; null = the target, or it numbered.",
    )
    source_prefix: str = Field(default="", description="What is put before each source, such as T5's `summarize: `.")
    max_length: int = Field(default=512, ge=4, description="Longest source in tokens, special tokens included.")
    on_long: Literal["truncate", "head_tail", "error"] = Field(
        default="truncate", description="What happens to longer sources: cut the end, cut the middle, or stop."
    )
    max_target_length: int = Field(default=128, ge=2, description="Longest target that is learned, in tokens.")
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Most tokens that are written for a source; null = task.max_target_length."
    )
    num_beams: int = Field(default=1, ge=1, description="Beams of the search for the likeliest text; 1 is greedy.")
    length_penalty: float = Field(default=1.0, description="Above 0 beams favour long texts, below 0 short ones.")
    no_repeat_ngram_size: int = Field(
        default=0, ge=0, description="No sequence of so many tokens is written twice in a text; 0 = no such rule."
    )

    def conflicts(self) -> list[tuple[str, str]]:
        if self.num_beams == 1 and self.length_penalty != 1.0:
            return [("length_penalty", "only used with task.num_beams above 1")]
        return []


class Task(BaseTask):
    """An encoder-decoder that learns to write a target for a source."""

    Options: ClassVar[type[TaskOptions]] = Seq2SeqOptions
    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    metric = "rougeL"
    at_prediction = ("max_new_tokens", "num_beams", "length_penalty", "no_repeat_ngram_size")
    changeable_texts = ("source",)
    options: Seq2SeqOptions

    def __init__(self, options: Seq2SeqOptions) -> None:
        super().__init__(options)
        self.columns = source_targets.Columns("source", "target", [])
        self.bleu = "13a"
        self.start: int | None = None

    @property
    def search(self) -> Search:
        """How texts are written."""
        from nlp_finetune.models.decoding import Search

        o = self.options
        return Search(o.max_new_tokens or o.max_target_length, o.num_beams, o.length_penalty, o.no_repeat_ngram_size)

    # -- data ---------------------------------------------------------------------------------

    def prepare(self, splits: Mapping[str, Dataset], say: Say) -> dict[str, Dataset]:
        o = self.options
        self.columns, line = source_targets.find(
            splits["train"], source=o.source, target=o.target, references=o.references
        )
        say(line)
        kept = {}
        for name, data in splits.items():
            targets = source_targets.reference_columns(data, self.columns)
            if name == "test" and not targets:
                say("test: no targets; it is left out (predict takes such files)")
                continue
            if len(targets) > 1:
                say(f"{name}: {len(targets)} references a row ({', '.join(targets)})")
            kept[name] = self._canonical(data, name, labelled=True)
        self.bleu = self._script(kept["train"]["target"][:_SAMPLE], say)
        return kept

    def _script(self, targets: Sequence[str], say: Say) -> str:
        from nlp_finetune.metrics.written import bleu_tokenizer

        found = bleu_tokenizer(targets)
        if found != "13a":
            say(f"targets have no spaces between words: ROUGE counts characters, BLEU tokenizes by {found}")
        return found

    def inputs(self, data: Dataset, *, labelled: bool) -> Dataset:
        return self._canonical(data, "input", labelled=labelled)

    def _canonical(self, data: Dataset, split: str, *, labelled: bool) -> Dataset:
        from datasets import Dataset

        return Dataset.from_dict(source_targets.read(data, self.columns, split, labelled=labelled))

    def input_columns(self) -> list[str]:
        return [self.columns.source]

    def facts(self) -> dict[str, Any]:
        c = self.columns
        return {
            "source": c.source, "target": c.target, "references": c.references, "bleu": self.bleu, "start": self.start,
        }  # fmt: skip

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.columns = source_targets.Columns(facts["source"], facts["target"], list(facts["references"]))
        self.bleu, self.start = facts["bleu"], facts["start"]

    def row_text(self, row: Mapping[str, Any]) -> str:
        return str(row["source"])

    def row_label(self, row: Mapping[str, Any]) -> str | None:
        return None

    def row_inputs(self, row: Mapping[str, Any]) -> list[str]:
        words = row["source"].split()
        return [row["source"] if len(words) <= _SHOWN_WORDS else " ".join(words[:_SHOWN_WORDS])]

    def encoded_findings(self, encoded: Mapping[str, Dataset]) -> list[Finding]:
        import numpy as np

        from nlp_finetune.data.checks import Finding
        from nlp_finetune.data.lengths import length_report

        report = length_report(np.asarray(encoded["train"]["target_length"]), self.options.max_target_length)
        if report.now.rows == 0:
            return []
        message = f"targets of train: {report.line()}. Raise task.max_target_length, or the model learns to stop early."
        return [Finding("warning", "target_truncation", message)]

    # -- model --------------------------------------------------------------------------------

    def config_overrides(self) -> dict[str, Any]:
        return {}

    def check_config(self, config: Any) -> None:
        from nlp_finetune.models.tokenizer import check_length

        if not config.is_encoder_decoder:
            raise InputError(f"model type {config.model_type} is no encoder-decoder, which this task needs.")
        super().check_config(config)
        check_length(config, option="task.max_target_length", tokens=self.options.max_target_length)
        # The token that the decoder starts with takes a position too.
        check_length(config, option="task.max_new_tokens", tokens=self.search.max_new_tokens + 1)

    def processor(self, checkpoint: Checkpoint, *, tokenizer: str | None, rows: Dataset, config: Any, say: Say) -> Any:
        from nlp_finetune.models.tokenizer import load_tokenizer

        def texts() -> Iterator[str]:
            for row in rows:
                yield self.options.source_prefix + row["source"]
                yield row["target"]

        found = load_tokenizer(checkpoint, tokenizer=tokenizer, texts=texts, config=config, say=say)
        self._check_special(found, config)
        return found

    def _check_special(self, tokenizer: Any, config: Any) -> None:
        """Refuse what could not start or end a text."""
        if hasattr(tokenizer, "set_tgt_lang_special_tokens"):
            raise InputError(
                f"{type(tokenizer).__name__}: texts begin with the code of a language, which this task does not set. "
                "Use a checkpoint for one pair of languages, or T5."
            )
        if source_targets.end_id(tokenizer) is None:
            raise InputError("The tokenizer has no token that ends a text: the model could not learn to stop.")
        self.start = getattr(config, "decoder_start_token_id", None)
        if self.start is None:
            raise InputError(
                "The model's configuration does not say which token its decoder starts with: set "
                "model.config.decoder_start_token_id (T5 and its kin: that of padding)."
            )

    def complete_model(self, model: Any, say: Say) -> None:
        from nlp_finetune.models.decoding import configure

        configure(model, self.search, say)

    def encode(self, rows: Mapping[str, list[Any]], processor: Any) -> dict[str, list[Any]]:
        o = self.options
        return source_targets.encode(
            rows, processor, prefix=o.source_prefix, max_length=o.max_length, max_target_length=o.max_target_length,
            on_long=o.on_long,
        )  # fmt: skip

    def token_lengths(self, rows: Mapping[str, list[Any]], processor: Any) -> list[int]:
        return source_targets.source_lengths([self.options.source_prefix + text for text in rows["source"]], processor)

    def collator(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        assert self.start is not None
        return source_targets.SourceTargetCollator(processor, start=self.start)

    def outputs(self, model: Any, batch: Mapping[str, Any], processor: Any, *, known: Any) -> Any:
        """What the model writes; the encoder's states are taken from the loss, where it was computed."""
        from nlp_finetune.models.decoding import write

        states = None if known is None else known.encoder_last_hidden_state
        return write(model, processor, batch, search=self.search, encoded=states)

    # -- learning -----------------------------------------------------------------------------

    def losses(self) -> tuple[str, ...]:
        return ("cross_entropy", "focal")

    def objective(self, loss: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Any]]:
        def objective(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[torch.Tensor, Any]:
            outputs = model(**self.model_inputs(batch), use_cache=False)
            return loss(outputs.logits, batch["labels"]) / num_items, outputs

        return objective

    def count_items(self, batch: Mapping[str, Any]) -> int:
        return int((batch["labels"] != source_targets.IGNORED).sum())

    # -- results ------------------------------------------------------------------------------

    def predictions(self, outputs: Any, batch: Mapping[str, Any]) -> list[Any]:
        return list(outputs)

    def metric_names(self) -> tuple[str, ...]:
        from nlp_finetune.metrics.written import NAMES

        return NAMES

    def _measured(self, texts: Sequence[str], rows: Dataset) -> Any:
        from nlp_finetune.metrics.written import measure

        return measure(texts, list(rows["references"]), bleu=self.bleu)

    def metrics(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, float]:
        from nlp_finetune.metrics.written import scores

        return scores(self._measured([one.text for one in predictions], rows))

    def resampled_metric(self, name: str, predictions: Sequence[Any], rows: Dataset) -> Callable[[np.ndarray], float]:
        statistics = self._measured([one.text for one in predictions], rows)
        return lambda positions: statistics.score(name, positions)

    def row_scores(self, predictions: Sequence[Any], rows: Dataset) -> RowScores:
        from nlp_finetune.metrics.details import row_scores

        return row_scores("rougeL", self._measured([one.text for one in predictions], rows).means["rougeL"])

    def evidence(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, Any]:
        """The rows that are `hardest`: how far from 1 their ROUGE-L is, what was written and what should have been."""
        from nlp_finetune.metrics.details import mistake, worst

        closeness = self.row_scores(predictions, rows).values
        pairs = zip(predictions, rows, closeness, strict=True)
        found = (mistake(row["row"], row["source"], row["target"], p.text, 1 - c) for p, row, c in pairs if c < 1)
        return {"hardest": worst(found)}

    def baselines(self, rows: Mapping[str, Dataset]) -> dict[str, dict[str, dict[str, float]]]:
        from nlp_finetune.metrics.written import rivals, scores

        found: dict[str, dict[str, dict[str, float]]] = {}
        for name, data in rows.items():
            if name != "train":
                texts = rivals(list(rows["train"]["target"]), list(data["source"]), bleu=self.bleu)
                found[name] = {rival: scores(self._measured(one, data)) for rival, one in texts.items()}
        return found

    def decode(self, predictions: Sequence[Any], rows: Dataset) -> list[dict[str, Any]]:
        return [{"generated": p.text, "new_tokens": p.tokens, "finished": p.finished} for p in predictions]

    def example(self) -> dict[str, Any]:
        return {"source": "The meeting has moved from Monday to Thursday.", "target": "Meeting now on Thursday."}
