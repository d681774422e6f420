"""Causal language modelling: texts, prompts with completions, or chats; prediction generates.

Canonical rows: `text`, or `prompt` and `completion`, or `messages`, and `row`. A prediction is an array
of sums over the row's tokens: negative log likelihood, tokens, tokens predicted right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from nlp_finetune.data import ROW, chats, documents, sequences
from nlp_finetune.errors import InputError
from nlp_finetune.tasks._language import LanguageModelTask
from nlp_finetune.tasks.base import Say, Scorer, TaskOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset


_SHOWN_WORDS = 8


class CausalLmOptions(TaskOptions):
    """Options of causal language modelling."""

    columns: ClassVar[tuple[str, ...]] = ("text", "prompt", "completion", "messages", "cross_documents")

    name: Literal["causal_lm"] = "causal_lm"
    text: str | None = Field(default=None, description="Column of plain texts; null = by name.")
    prompt: str | None = Field(default=None, description="Column of prompts, which are not learned; null = by name.")
    completion: str | None = Field(default=None, description="Column of what follows the prompts; null = by name.")
    messages: str | None = Field(default=None, description="Column of chats, lists of {role, content}; null = by name.")
    document: Literal["auto", "line", "paragraph", "file"] = Field(
        default="auto",
        description="A document of a .txt file; auto: a paragraph where blank lines divide them, else a line.",
    )
    block_size: int = Field(default=512, ge=8, description="Longest input in tokens; longer texts are cut into blocks.")
    cross_documents: bool = Field(
        default=False, description="Whether a block of plain text goes on with the next document where one ends."
    )
    separator: str = Field(default="\n", description="What stands between a prompt and its completion.")
    max_new_tokens: int = Field(default=50, ge=1, description="Most tokens that predict writes for a prompt.")
    do_sample: bool = Field(default=False, description="Whether predict draws tokens; else it takes the likeliest.")
    temperature: float = Field(default=1.0, gt=0, description="Above 1 draws are bolder, below 1 safer.")
    top_k: int | None = Field(default=None, ge=1, description="Only so many tokens, the likeliest, are drawn.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Only the likeliest tokens of this share are drawn.")
    seed: int = Field(default=0, ge=0, description="Seed of what predict draws.")

    def conflicts(self) -> list[tuple[str, str]]:
        kinds = [name for name in ("text", "completion", "messages") if getattr(self, name) is not None]
        found = [(name, f"{kinds[0]} is set too; rows are one or the other") for name in kinds[1:]]
        if self.prompt is not None and kinds[:1] in (["text"], ["messages"]):
            found.append(("prompt", f"{kinds[0]} is set too; rows are one or the other"))
        if not self.do_sample:
            fields = type(self).model_fields
            unused = [n for n in ("temperature", "top_k", "top_p", "seed") if getattr(self, n) != fields[n].default]
            found += [(name, "only used with task.do_sample=true") for name in unused]
        return found


class Task(LanguageModelTask):
    """A decoder that learns to predict the next token."""

    Options: ClassVar[type[TaskOptions]] = CausalLmOptions
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    metric = "perplexity"
    at_prediction = ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "seed")
    options: CausalLmOptions

    def __init__(self, options: CausalLmOptions) -> None:
        super().__init__(options)
        self.text_rows = options.document
        self.layout = documents.Layout("text", {"text": "text"})

    @property
    def length_options(self) -> list[str]:
        return ["block_size"]

    @property
    def cuts_long_rows(self) -> bool:  # type: ignore[override]
        return self.layout.kind != "text"

    @property
    def changeable_texts(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("prompt",) if self.layout.kind == "completion" else ()

    # -- data ---------------------------------------------------------------------------------

    def prepare(self, splits: Mapping[str, Dataset], say: Say) -> dict[str, Dataset]:
        o = self.options
        asked = {"text": o.text, "prompt": o.prompt, "completion": o.completion, "messages": o.messages}
        self.layout = documents.find(splits["train"], asked)
        if o.cross_documents and self.layout.kind != "text":
            raise InputError("task.cross_documents joins plain texts, and these rows are not: leave it out.")
        say(self.layout.describe())
        kept = {}
        for name, data in splits.items():
            if name == "test" and not documents.has_targets(data, self.layout):
                say("test: not all columns are there; it is left out (predict takes such files)")
            else:
                kept[name] = self._canonical(data, name, say, labelled=True)
        return kept

    def inputs(self, data: Dataset, *, labelled: bool) -> Dataset:
        return self._canonical(data, "input", lambda line: None, labelled=labelled)

    def _canonical(self, data: Dataset, split: str, say: Say, *, labelled: bool) -> Dataset:
        from datasets import Dataset

        return Dataset.from_dict(documents.read(data, self.layout, split, say=say, labelled=labelled))

    def input_columns(self) -> list[str]:
        return [self.layout.prompt]

    def facts(self) -> dict[str, Any]:
        return {"kind": self.layout.kind, "columns": self.layout.columns}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.layout = documents.Layout(facts["kind"], dict(facts["columns"]))

    def row_text(self, row: Mapping[str, Any]) -> str:
        return documents.shown(row)

    def row_label(self, row: Mapping[str, Any]) -> str | None:
        return None

    def row_inputs(self, row: Mapping[str, Any]) -> list[str]:
        if "text" in row:
            return [" ".join(row["text"].split()[:_SHOWN_WORDS])]
        return [row["prompt"] if "prompt" in row else row["messages"][0]["content"]]

    # -- model --------------------------------------------------------------------------------

    def config_overrides(self) -> dict[str, Any]:
        return {}

    def check_config(self, config: Any) -> None:
        from nlp_finetune.models.settings import reads_both_ways

        if reads_both_ways(config):
            raise InputError(
                f"model type {config.model_type} reads in both directions, so it cannot learn to predict what comes "
                "next. Take a decoder (GPT-2, Llama, ...), or task.name=masked_lm for this one."
            )
        super().check_config(config)

    def encode(self, rows: Mapping[str, list[Any]], processor: Any) -> dict[str, list[Any]]:
        o = self.options
        if self.layout.kind == "text":
            return sequences.blocks(rows["text"], processor, size=o.block_size, cross_documents=o.cross_documents)
        return sequences.fitted(self._labelled(rows, processor), processor, size=o.block_size)

    def _labelled(self, rows: Mapping[str, list[Any]], processor: Any) -> list[sequences.Labelled]:
        if self.layout.kind == "chat":
            return chats.encode(rows["messages"], rows[ROW], processor)
        return sequences.completions(self._prompts(rows), rows["completion"], processor)

    def _prompts(self, rows: Mapping[str, list[Any]]) -> list[str]:
        return [prompt + self.options.separator for prompt in rows["prompt"]]

    def token_lengths(self, rows: Mapping[str, list[Any]], processor: Any) -> list[int]:
        if self.layout.kind == "text":
            found = sequences.tokens(rows["text"], processor, special=True)
            return [len(sequences.ended(ids, processor)) for ids in found]
        return [len(ids) for ids, _ in self._labelled(rows, processor)]

    def collator(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        return sequences.SequenceCollator(processor)

    # -- learning -----------------------------------------------------------------------------

    def losses(self) -> tuple[str, ...]:
        return ("cross_entropy", "focal")

    def model_inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in batch.items() if name not in ("labels", "segments")}

    def objective(self, loss: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Any]]:
        def objective(model: Any, batch: Mapping[str, Any], num_items: Any) -> tuple[torch.Tensor, Any]:
            outputs = model(**self.model_inputs(batch), use_cache=False)
            return loss(outputs.logits, sequences.next_tokens(batch["labels"])) / num_items, outputs

        return objective

    def count_items(self, batch: Mapping[str, Any]) -> int:
        return int((batch["labels"][..., 1:] != sequences.IGNORED).sum())

    # -- results ------------------------------------------------------------------------------

    def predictions(self, outputs: Any, batch: Mapping[str, Any]) -> list[Any]:
        """Sums `[3]` a row: negative log likelihood, tokens, tokens right; a list of them for a block of several."""
        from nlp_finetune.learning.tokens import token_sums

        segments = batch["segments"][:, 1:] if "segments" in batch else None
        return list(token_sums(outputs.logits[:, :-1], batch["labels"][:, 1:], segments))

    def scores(self, sums: np.ndarray) -> dict[str, float]:
        from nlp_finetune.metrics.language import language

        return language(sums)

    def metric_names(self) -> tuple[str, ...]:
        from nlp_finetune.metrics.language import NAMES

        return NAMES

    def encoded_baselines(self, encoded: Mapping[str, Dataset]) -> dict[str, dict[str, dict[str, float]]]:
        from nlp_finetune.metrics.language import rivals

        found = {name: sequences.with_targets(data) for name, data in encoded.items()}
        return rivals(found.pop("train"), found)

    def answers(self, scorer: Scorer, rows: Dataset) -> list[dict[str, Any]]:
        """The text that the model writes after each prompt, how many tokens, and whether it came to an end."""
        from nlp_finetune.models import generation

        o, model, tokenizer = self.options, scorer.model, scorer.processor
        sampling = generation.Sampling(o.max_new_tokens, o.do_sample, o.temperature, o.top_k, o.top_p, o.seed)
        prompts = self._prompt_ids(rows, model, tokenizer)
        numbers = rows[ROW]

        def continued(positions: list[int]) -> list[dict[str, Any]]:
            batch = [prompts[i] for i in positions]
            found = generation.generate(
                model, tokenizer, batch, rows=[numbers[i] for i in positions], sampling=sampling
            )
            return [
                {
                    "generated": generation.new_text(tokenizer, prompt, new.ids),
                    "new_tokens": len(new.ids),
                    "finished": new.finished,
                }
                for prompt, new in zip(batch, found, strict=True)
            ]

        return scorer.in_batches([len(prompt) for prompt in prompts], continued)

    def _prompt_ids(self, rows: Dataset, model: Any, tokenizer: Any) -> list[list[int]]:
        """Token ids of the prompts, without their beginning where they leave no room for new tokens."""
        columns = rows[:]
        if self.layout.kind == "chat":
            found = chats.prompts(columns["messages"], columns[ROW], tokenizer)
        else:
            texts = columns["text"] if self.layout.kind == "text" else self._prompts(columns)
            found = sequences.tokens(texts, tokenizer, special=True)
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions is None:
            return found
        room = positions - self.options.max_new_tokens
        if room < 1:
            raise InputError(
                f"task.max_new_tokens {self.options.max_new_tokens} leaves no room for a prompt: "
                f"the model has {positions} positions."
            )
        return [sequences.keep_end(ids, room, begin=tokenizer.bos_token_id) for ids in found]
