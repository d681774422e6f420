"""The sections of a recipe: every key, its type, its default and its meaning. Defaults stand only here.

`section.py` is their base; `lora`, `augment`, `freeze`, `loss`, `optim` and `regularize` stand in files of their own.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, SkipValidation

from nlp_finetune.recipe.adapters import Lora
from nlp_finetune.recipe.augmentation import Augment
from nlp_finetune.recipe.averaging import Average
from nlp_finetune.recipe.durations import Duration
from nlp_finetune.recipe.finding import names_a_file
from nlp_finetune.recipe.freezing import Freeze
from nlp_finetune.recipe.head import Head
from nlp_finetune.recipe.hub import Hub
from nlp_finetune.recipe.learning import Loss, Optim
from nlp_finetune.recipe.regularization import Regularize
from nlp_finetune.recipe.section import (
    BelowOne,
    Conflict,
    Count,
    NotNegative,
    OpenFraction,
    Positive,
    Section,
    Seed,
    Text,
)


class TaskOptions(Section):
    """What the options of every task have; each task adds its own."""

    columns: ClassVar[tuple[str, ...]] = ("text", "label")
    """Options that describe the data, by naming columns for the most part: other data clear them."""

    name: str = Field(description="The task.")


class Model(Section):
    """Which checkpoint is fine-tuned, and what is changed in it."""

    checkpoint: Text = Field(
        description="Where the weights are: a Hub id, folder, run, `pkg:PACKAGE/FOLDER` or `scratch:NAME`."
    )
    revision: Text | None = Field(
        default=None, description="Commit or tag of a Hub checkpoint; null is its newest state."
    )
    tokenizer: Text | None = Field(
        default=None,
        description="Folder, Hub id, or `train` to fit one on the training rows; null is the checkpoint's.",
    )
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of the model's configuration, such as the sizes of a `scratch:` model.",
    )
    head_init: Literal["default", "xavier", "he", "normal", "orthogonal", "zero"] = Field(
        default="default",
        description="How weights of a new head are drawn; `default` leaves it to the model.",
    )
    head_bias: Literal["auto", "zero", "prior"] = Field(
        default="auto",
        description="Where a new head's outputs start: at zero, or at how often each class occurs in training. "
        "`auto` is `prior` where a row may have several classes, without class weights.",
    )
    dropout: BelowOne | None = Field(
        default=None,
        description="Dropout probability everywhere in backbone and head; null leaves the checkpoint's.",
    )
    activation: Text | None = Field(
        default=None,
        description="Activation function of the backbone, such as `relu`; null leaves the checkpoint's.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Whether Python code that comes with the checkpoint may be run. Read it first."
    )
    save_format: Literal["auto", "transformers", "timm"] = Field(
        default="auto",
        description="Format of `model/`; timm is for image models, `auto` is transformers' where that can hold it.",
    )


class Data(Section):
    """Which rows are trained on, validated on and tested on."""

    source: Text | None = Field(
        default=None,
        description="A Hub data set, a file, a folder, a glob, or `demo:NAME` for data inside this package.",
    )
    revision: Text | None = Field(
        default=None, description="Commit or tag of a Hub data set; null is its newest state."
    )
    config: Text | None = Field(default=None, description="Name of the configuration (subset) of a Hub data set.")
    train: Text = Field(default="train", description="Split of the source, or a file, to train on.")
    validation: Text | None = Field(
        default="validation",
        description="Split of the source, or a file, to validate on; without one training rows are held out.",
    )
    test: Text | None = Field(
        default=None,
        description="Split of the source, or a file, for the final test; null is that of a local source.",
    )
    columns: list[Text] | None = Field(
        default=None,
        min_length=1,
        description="Column names, in order, of a file without a header; null reads the header.",
    )
    delimiter: Text | None = Field(
        default=None,
        description="What separates columns in a text file: a character, `tab` or `comma`; null detects it.",
    )
    quoting: Literal["auto", "none", "minimal"] = Field(
        default="auto",
        description="Whether quotation marks in a text file enclose fields (`minimal`) or are text (`none`).",
    )
    encoding: Text | None = Field(default=None, description="Character encoding of text files; null detects it.")
    limit: Count | None = Field(
        default=None,
        description="Number of training rows to take, stratified by label, for a quick try; null takes all.",
    )
    sampler: Literal["shuffled", "balanced"] = Field(
        default="shuffled",
        description="Whether an epoch sees each training row once, or as many rows with all classes equally often.",
    )
    validation_fraction: OpenFraction = Field(
        default=0.1, description="Share of the training rows held out where there is no validation split."
    )
    folds: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Number of folds for cross-validation, one run each; null trains once, on one split.",
    )
    fold: Count | None = Field(
        default=None, description="Which one of the folds to train alone, from 1; null trains all of them."
    )
    seed: Seed | None = Field(
        default=None, description="Seed of which rows are held out or taken by `limit`; null is train.seed."
    )

    def conflicts(self) -> list[Conflict]:
        if self.source is None and not names_a_file(self.train):
            return [("source", f"needed, because data.train ({self.train}) is a split and not a file")]
        if self.fold is not None and self.fold > (self.folds or 0):
            return [("fold", "needs data.folds, at least as many")]
        return []


class Train(Section):
    """How long, how fast and how carefully."""

    engine: Literal["trainer", "accelerate"] = Field(
        default="trainer",
        description="transformers' Trainer or the explicit Accelerate loop; both give the same answer.",
    )
    epochs: Positive = Field(default=3.0, description="Number of passes over the training rows; fractions are fine.")
    max_steps: Count | None = Field(
        default=None, description="Number of optimizer steps, in place of `epochs`; null trains for `epochs`."
    )
    batch_size: Count = Field(
        default=32,
        description="Rows in one optimizer step, whatever the number of processes and micro batches.",
    )
    micro_batch_size: Count | Literal["auto"] = Field(
        default="auto",
        description="Most rows in one forward pass of one process; `auto` finds what fits into memory.",
    )
    eval_batch_size: Count | Literal["auto"] = Field(
        default="auto",
        description="Rows in one forward pass of an evaluation; `auto` is 64, or fewer where rows are long.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="Number format of the computation; `auto` takes bf16 where a GPU supports it.",
    )
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether blocks are computed again in the backward pass to save memory; `auto` does it where "
        "micro batches would be too small without.",
    )
    threads: Count | Literal["auto"] = Field(
        default="auto",
        description="CPU threads of one process; `auto` shares the cores among the local processes.",
    )
    seed: Seed = Field(default=13, description="Seed of everything random: new weights, order of rows, dropout.")
    seeds: list[Seed] | None = Field(
        default=None,
        min_length=2,
        description="Seeds to train with, one run each; scores get a spread, the best on validation is kept.",
    )
    eval_every: Count | Literal["epoch"] = Field(
        default="epoch",
        description="When to evaluate on the validation rows: at each epoch's end, or every so many steps.",
    )
    save_every: Count | Literal["eval", "epoch"] | Duration = Field(
        default="eval",
        description="When to save a checkpoint: after each evaluation, each epoch, every so many steps, or every "
        "so much time, like `30m`.",
    )
    max_time: Duration | None = Field(
        default=None,
        description="Time, like `2h` or `1h30m`, after which one start saves a checkpoint and ends with exit code 75.",
    )
    save_total: Count = Field(default=2, description="Number of newest checkpoints kept; the best one is kept besides.")
    log_every: Count = Field(default=10, description="Optimizer steps between two lines in the history.")
    metric: Text = Field(default="auto", description="Metric that picks the best checkpoint; `auto` takes the task's.")
    patience: Count | None = Field(
        default=None,
        description="Stop after so many evaluations in a row without a new best; null never stops early.",
    )
    min_delta: NotNegative = Field(
        default=0.0, description="How much better a new best must be to count; for `patience`."
    )
    on_divergence: Literal["stop", "rollback"] = Field(
        default="stop",
        description="Where loss or gradient are no finite numbers: stop, or go back to the last checkpoint with the "
        "learning rate halved.",
    )
    max_rollbacks: Count = Field(default=3, description="Most times that a run is rolled back; for `rollback`.")
    resume: Literal["auto", "never"] = Field(
        default="auto", description="Whether an unfinished run in the same output folder is gone on with."
    )
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="Processes that load data; 0 loads in the main one, and so does `auto` except for images.",
    )
    compact_vocabulary: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Train only the rows of the embedding table that training reads; `auto` does where it is exact.",
    )
    max_tokens: Count | None = Field(
        default=None,
        description="Most tokens in one forward pass of one process, padding included: a step is cut into as many "
        "micro batches as that takes; null cuts by `micro_batch_size`.",
    )
    packing: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Lay rows end to end in place of padding them; `auto` does where that was measured to pay.",
    )
    fast_dropout: Literal["auto", "on", "off"] = Field(
        default="auto", description="Cheap random bits for dropout on a CPU, its probability kept to 1/65536."
    )
    channels_last: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Layout of images and convolutions in memory; `auto` takes the faster one, on CPUs and for half "
        "precision on GPUs.",
    )
    first_token_only: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Compute the last block for the first token alone where the head reads no other; `auto`: on a CPU.",
    )
    compile: Literal["on", "off"] = Field(
        default="off",
        description="Let torch compile the model for training, and on a GPU replay each pass as one graph: minutes "
        "once, for small kernels that a GPU waits for.",
    )
    bucket: bool = Field(default=True, description="Whether rows of like length share a batch, which saves padding.")
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        default_factory=list,
        description="Experiment trackers that get losses and scores; each needs its package.",
    )
    extra: dict[str, Any] = Field(
        default_factory=dict,
        description="Further settings of transformers.TrainingArguments, by their names there.",
    )

    def conflicts(self) -> list[Conflict]:
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            return [("seeds", "a seed stands there twice")]
        if self.micro_batch_size != "auto" and self.max_tokens is not None:
            return [("max_tokens", "cuts a step by tokens: leave train.micro_batch_size at auto")]
        if self.packing == "on" and self.gradient_checkpointing == "on":
            return [("packing", "blocks of packed rows cannot be computed again: leave gradient_checkpointing at auto")]
        if self.compile == "on":
            many = "shapes have to be few where they are compiled"
            if self.packing == "on":
                return [("compile", f"not together with train.packing: {many}")]
            if self.max_tokens is not None:
                return [("compile", f"not together with train.max_tokens: {many}")]
            if self.gradient_checkpointing == "on":
                return [("compile", "not together with train.gradient_checkpointing: choose one")]
        if self.micro_batch_size != "auto" and self.micro_batch_size > self.batch_size:
            return [("micro_batch_size", f"larger than train.batch_size, which is {self.batch_size}")]
        if self.on_divergence == "stop" and self.max_rollbacks != type(self).model_fields["max_rollbacks"].default:
            return [("max_rollbacks", "nothing is rolled back: it needs train.on_divergence: rollback")]
        if self.patience is None and self.min_delta:
            return [("min_delta", "nothing stops early: it needs train.patience")]
        if len(set(self.report_to)) < len(self.report_to):
            return [("report_to", "names a tracker twice")]
        return []


class Recipe(Section):
    """One experiment: everything that decides what a run does."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = Field(
        description="Name of the experiment and of its folder under `runs/`."
    )
    description: str = Field(default="", description="One line for `list`.")
    # `loading` has validated them: only the task's own class knows them.
    task: SerializeAsAny[SkipValidation[TaskOptions]] = Field(
        description="What kind of problem this is, and its options."
    )
    model: Model = Field(description="Which checkpoint is fine-tuned, and what is changed in it.")
    data: Data = Field(description="Which rows are trained on, validated on and tested on.")
    augment: Augment = Field(
        default=Augment(), description="How training rows are changed at random; each way is off at 0."
    )
    head: Head | None = Field(
        default=None, description="A head of one's own in place of the family's, for text classification."
    )
    lora: Lora | None = Field(default=None, description="Adapters that are trained in place of all weights.")
    freeze: Freeze = Field(default_factory=Freeze, description="What stays as the checkpoint has it.")
    loss: Loss = Field(default=Loss(), description="What training minimises.")
    regularize: Regularize = Field(
        default=Regularize(), description="What is asked of a model beyond fitting its training rows; each is off at 0."
    )
    average: Average = Field(
        default=Average(), description="Whether what is validated and saved is an average of weights, and of which."
    )
    optim: Optim = Field(default=Optim(), description="How weights move.")
    train: Train = Field(default=Train(), description="How long, how fast and how carefully.")
    hub: Hub = Field(default_factory=Hub, description="Where a finished run is pushed.")
    output_dir: Text | None = Field(default=None, description="Folder of the run; null is `runs/NAME/TIME`.")
    demo: dict[str, Any] = Field(
        default_factory=dict,
        description="What `--demo` overrides, by dotted path: data and a checkpoint that need no network.",
    )

    def conflicts(self) -> list[Conflict]:
        several = {
            "train.seeds": self.train.seeds is not None,
            "data.folds": self.data.folds is not None and self.data.fold is None,
            "loss.imbalance": self.loss.imbalance is not None,
            "freeze.until": self.freeze.until is not None,
        }
        asked = [name for name, is_set in several.items() if is_set]
        if len(asked) > 1:
            return [(asked[1], f"one series at a time; leave {asked[0]} out")]
        if self.head is not None and self.freeze.until is not None:
            return [("head", "not together with freeze.until, whose stages start from the runs before, heads included")]
        if self.loss.imbalance is not None and self.data.sampler != "shuffled":
            return [("data.sampler", "loss.imbalance auto tries it by itself; leave one of them out")]
        if self.loss.imbalance is not None and self.train.metric == "loss":
            return [("loss.imbalance", "losses can't be compared by train.metric loss; take a score, like macro_f1")]
        return []


SECTIONS: dict[str, type[Section]] = {
    "model": Model,
    "data": Data,
    "augment": Augment,
    "head": Head,
    "lora": Lora,
    "freeze": Freeze,
    "loss": Loss,
    "regularize": Regularize,
    "average": Average,
    "optim": Optim,
    "train": Train,
    "hub": Hub,
}
"""The sections whose keys are the same for every task; `task` is validated by the task's own class."""
OPTIONAL = frozenset({"head", "lora"})
"""Sections that a recipe may lack: null there is not the same as all defaults."""
