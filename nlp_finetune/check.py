"""What training would do, and what is wrong with the data: the `check` verb, and the first step of `train`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlp_finetune import augmenting, choices
from nlp_finetune.data import checks, lengths
from nlp_finetune.data.duplicates import SplitTexts
from nlp_finetune.data.examples import of_classes
from nlp_finetune.errors import InputError
from nlp_finetune.learning.schedules import ScheduleFactor
from nlp_finetune.models import own_head, summary
from nlp_finetune.models.settings import is_foreign
from nlp_finetune.runtime import Runtime, say

if TYPE_CHECKING:
    from datasets import Dataset

    from nlp_finetune.preparation import Prepared
    from nlp_finetune.recipe import Optim
    from nlp_finetune.tasks.base import BaseTask

_MANY_CLASSES = 20
_HAS_A_TABLE = ("class_balance", "lengths")
"""Findings that only repeat what a table of the report shows."""
_MEASURED_ROWS = 20_000
"""Lengths are measured on at most this many rows of a split: percentiles need no more."""


@dataclass(frozen=True)
class Section:
    """A titled table of a report."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class DataReport:
    """What the data are like: sizes, balance, lengths, findings, and what simple rivals score."""

    splits: dict[str, int]
    origins: dict[str, str]
    balance: dict[str, dict[str, int]]
    lengths: dict[str, lengths.LengthReport]
    findings: list[checks.Finding]
    baselines: dict[str, dict[str, dict[str, float]]]
    example: list[str]
    examples: dict[str, str]
    example_option: str
    details: dict[str, dict[str, str]]
    cuts_long_rows: bool

    def sections(self) -> list[Section]:
        """Tables for people."""
        parts = [
            Section("Data", ("split", "rows", "from"), [(s, str(n), self.origins[s]) for s, n in self.splits.items()])
        ]
        parts += [self._balance_section()] if self.balance["train"] else []
        rows = [(s, *map(str, r.percentiles.values()), str(r.longest), self._cut(r)) for s, r in self.lengths.items()]
        header = ("split", "50%", "75%", "90%", "95%", "99%", "longest", "")
        parts += [Section("Lengths in tokens", header, rows)] if rows else []
        parts += [Section(title, ("", ""), list(pairs.items())) for title, pairs in self.details.items()]
        found = [(str(f.level), f.message) for f in self.findings if f.code not in _HAS_A_TABLE]
        found = found or [("ok", "nothing found")]
        parts.append(Section("Findings", ("level", "what"), found))
        scores = [
            (split, name, ", ".join(f"{k} {v:.4f}" for k, v in values.items()))
            for split, rivals in self.baselines.items()
            for name, values in rivals.items()
        ]
        return [*parts, Section("Simple rivals", ("split", "rival", "scores"), scores)] if scores else parts

    def _balance_section(self) -> Section:
        train = self.balance["train"]
        total = sum(train.values())
        names = sorted(train, key=lambda name: -train[name])
        rows = [
            (name, *(str(counts.get(name, 0)) for counts in self.balance.values()), f"{train[name] / total:.1%}")
            for name in names[:_MANY_CLASSES]
        ]
        if len(names) > _MANY_CLASSES:
            rows.append((f"... {len(names) - _MANY_CLASSES} more", *("" for _ in self.balance), ""))
        return Section("Labels", ("label", *self.balance, "share of train"), rows)

    def _cut(self, report: checks.LengthReport) -> str:
        """What the longest input costs: tokens, or more windows where these cover long rows."""
        if self.cuts_long_rows or report.now.rows == 0:
            return report.line()
        return f"{lengths.percent(report.now.rows)} of rows are read in windows of {report.now.max_length}"

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return {
            "splits": self.splits,
            "origins": self.origins,
            "labels": self.balance,
            "lengths": {
                name: {
                    "percentiles": {str(k): v for k, v in report.percentiles.items()},
                    "longest": report.longest,
                    "summary": self._cut(report),
                }
                for name, report in self.lengths.items()
            },
            "findings": [{"level": f.level, "code": f.code, "message": f.message} for f in self.findings],
            "baselines": self.baselines,
            "example": self.example,
            "examples": self.examples,
            "example_option": self.example_option,
            "details": self.details,
        }


def data_report(prepared: Prepared, *, strict: bool = False, tell: Callable[[str], None] = say) -> DataReport:
    """Examine the data of a run and say what was found.

    Raises `InputError` for findings that are errors, and with `strict` for warnings too.
    """
    task, rows = prepared.task, prepared.rows
    texts = {name: _texts(prepared, data) for name, data in rows.items()}
    measured = {} if task.images else {name: _lengths(prepared, data) for name, data in rows.items()}
    report = DataReport(
        splits={name: len(data) for name, data in rows.items()},
        origins={name: prepared.loaded.origins.get(name, "held out of train") for name in rows},
        balance={name: checks.balance(t.labels, separator=task.label_separator).counts for name, t in texts.items()},
        lengths=measured,
        findings=checks.examine(
            texts,
            lengths=measured if task.cuts_long_rows else None,
            length_keys=[f"task.{key}" for key in task.length_options],
            separator=task.label_separator,
            unit="image" if task.images else "text",
        )
        + task.findings(rows)
        + task.encoded_findings(prepared.encoded),
        baselines=_baselines(prepared),
        example=_example(task, rows["train"]),
        examples=of_classes(texts["train"], separator=task.label_separator),
        example_option="--image" if task.images else "--text",
        details={**task.details(rows, prepared.processor), **augmenting.details(prepared.recipe.augment)},
        cuts_long_rows=task.cuts_long_rows,
    )
    tell("rows: " + ", ".join(f"{name} {count:,}" for name, count in report.splits.items()))
    for finding in report.findings:
        if finding.level == "warning":
            tell(f"warning: {finding.message}")
    stopping = [f.message for f in report.findings if f.level == "error" or (strict and f.level == "warning")]
    if stopping:
        raise InputError("the data cannot be trained on:\n  " + "\n  ".join(stopping))
    return report


def _baselines(prepared: Prepared) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of simple rivals by split and name, of those that read rows and those that read model inputs.

    Scores that are no numbers (a correlation with constant labels, say) are left out: JSON has none.
    """
    found = prepared.task.baselines(prepared.rows)
    for split, rivals in prepared.task.encoded_baselines(prepared.encoded).items():
        found = {**found, split: {**found.get(split, {}), **rivals}}
    return {
        split: {
            name: {metric: value for metric, value in scores.items() if math.isfinite(value)}
            for name, scores in rivals.items()
        }
        for split, rivals in found.items()
    }


def _example(task: BaseTask, rows: Dataset) -> list[str]:
    """Inputs of a training row that is neither long nor tiny, for a command to paste."""
    first = list(rows.select(range(min(200, len(rows)))))
    return task.row_inputs(min(first, key=lambda row: abs(len(task.row_text(row)) - 60)))


def _texts(prepared: Prepared, rows: Dataset) -> SplitTexts:
    task = prepared.task
    listed = list(rows.remove_columns(list(task.heavy_columns)))
    return SplitTexts(
        texts=[task.row_text(row) for row in listed],
        labels=[task.row_label(row) for row in listed],
        rows=[row["row"] for row in listed],
    )


def _lengths(prepared: Prepared, rows: Dataset) -> lengths.LengthReport:
    import numpy as np

    sample = rows.select(range(min(len(rows), _MEASURED_ROWS)))
    measured = prepared.task.token_lengths(sample[:], prepared.processor)
    limit = getattr(prepared.config, "max_position_embeddings", None)
    return lengths.length_report(np.asarray(measured), prepared.task.max_length, limit=limit)


@dataclass(frozen=True)
class PlanReport:
    """What training would do: steps, learning rates, layers, memory."""

    facts: list[tuple[str, str]]
    learning_rates: list[tuple[str, str, str]]
    layers: list[tuple[summary.LayerGroup, list[float]]]
    """Groups of layers, each with the peak learning rates of what trains in it, the lowest first."""
    memory_mb: dict[str, float]

    def sections(self) -> list[Section]:
        """Tables for people."""
        layers = [
            (g.name, g.kind, g.shapes, f"{g.parameters:,}", _trained_share(g.trainable), _span(rates))
            for g, rates in self.layers
        ]
        memory = [(name, f"{size:,.0f} MB") for name, size in self.memory_mb.items()]
        return [
            Section("Plan", ("", ""), list(self.facts)),
            Section("Learning rate", ("at", "step", "rate"), list(self.learning_rates)),
            Section("Model", ("group", "kind", "shapes", "parameters", "", "rate"), layers),
            Section("Memory (estimate)", ("part", "size"), memory),
        ]

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return {
            "plan": dict(self.facts),
            "learning_rates": {at: float(rate) for at, _, rate in self.learning_rates},
            "layers": [
                {
                    "name": g.name,
                    "kind": g.kind,
                    "parameters": g.parameters,
                    "trainable": bool(g.trainable),
                    "learning_rates": rates,
                }
                for g, rates in self.layers
            ],
            "memory_mb": self.memory_mb,
        }


def _trained_share(share: float) -> str:
    return "frozen" if share == 0 else "trained" if share == 1 else f"{share:.2%} trained"


def _span(rates: Sequence[float]) -> str:
    """The lowest and the highest of some learning rates."""
    return " to ".join(dict.fromkeys(f"{rate:.3g}" for rate in (rates[0], rates[-1]))) if rates else ""


def _layers(model: Any, optim: Optim) -> list[tuple[summary.LayerGroup, list[float]]]:
    """The groups of layers of a model with the peak learning rates of what trains in each."""
    from nlp_finetune.build import rate_factors

    factors = rate_factors(model, optim)
    groups = {part.name: part for part in summary.parts(model)}
    found, seen = [], set[int]()
    for group in summary.layer_groups(model):
        own = {id(p) for p in groups[group.name].module.parameters()} - seen
        seen |= own
        found.append((group, sorted({optim.learning_rate * factors[key] for key in own if key in factors})))
    return found


def _adapter_fact(prepared: Prepared, model: Any) -> list[tuple[str, str]]:
    """Put the recipe's adapters into a model without memory, and what they are."""
    from nlp_finetune.models import adapters

    recipe, said = prepared.recipe, list[str]()
    if recipe.lora is not None:
        nowhere = adapters.Base(prepared.checkpoint.location)
        adapters.add(
            model,
            **recipe.lora.model_dump(),
            auto_class=prepared.task.auto_class,
            seed=recipe.train.seed,
            base=nowhere,
            say=said.append,
        )
    return [("adapters", line) for line in said]


def _freeze_fact(prepared: Prepared, model: Any) -> list[tuple[str, str]]:
    """Draw anew and freeze what the recipe says in a model without memory, and what that is."""
    from nlp_finetune.build import choose_what_trains
    from nlp_finetune.learning.thawing import thaw_steps
    from nlp_finetune.models import freezing

    said, section = list[str](), prepared.recipe.freeze
    choose_what_trains(model, prepared.recipe, tell=said.append)
    facts = [("freeze" if line.startswith("frozen") else "new layers", line) for line in said]
    if section.until is not None:
        for number, stage in enumerate(freezing.stages(model, floor=section.layers), 1):
            facts.append((f"stage {number}", f"{', '.join(stage.added)} {'trains' if number == 1 else 'too'}"))
    if section.gradual is not None:
        named = freezing.thaw_groups(model)
        rows = len(prepared.encoded["train"])
        starts = thaw_steps(len(named), every=section.gradual, rows=rows, batch_size=prepared.batch_size)
        facts += [
            (f"from step {start}", name if start < prepared.steps else f"{name}: after the run's end")
            for (name, _), start in zip(named, starts, strict=True)
        ]
    return facts


def _average_fact(prepared: Prepared) -> list[tuple[str, str]]:
    """Which average of weights is validated and saved, if any."""
    section = prepared.recipe.average
    said = {
        "ema": f"moving average of the weights (EMA), decay {section.decay:g}",
        "swa": f"mean of the weights every {section.every} steps, in the last {1 - section.start:.0%} of them (SWA)"
        if section.every != "epoch"
        else f"mean of the weights at each epoch's end, in the last {1 - section.start:.0%} of the steps (SWA)",
    }
    said["soup"] = f"mean of those of the {section.keep} best evaluations that do better together (greedy soup)"
    return [] if section.name is None else [("average", said[section.name])]


def plan_report(prepared: Prepared, runtime: Runtime) -> PlanReport:
    """Say what training would do, without loading weights: the model is built without memory."""
    import torch

    import nlp_finetune.models  # noqa: F401  before the first import of transformers

    import transformers  # isort: skip

    recipe = prepared.recipe
    optim, train = recipe.optim, recipe.train
    with torch.device("meta"):
        head = choices.own_head(recipe.head)
        if head is not None:
            model = own_head.bare(prepared.config, head)
        else:
            model = getattr(transformers, prepared.task.auto_class).from_config(
                prepared.config, trust_remote_code=is_foreign(prepared.config)
            )
    adapter = [*_freeze_fact(prepared, model), *_adapter_fact(prepared, model)]
    steps, rows = prepared.steps, len(prepared.encoded["train"])
    factor = ScheduleFactor(optim.schedule, warmup=optim.warmup, steps=steps, power=optim.power, decay=optim.decay)
    marks = [(f"{share}%", min(steps - 1, round(share / 100 * steps))) for share in (0, 25, 50, 75, 100)]
    longest = max(prepared.encoded["train"]["length"])
    per_process = -(-prepared.batch_size // runtime.processes)
    memory = summary.estimate_memory(
        model,
        rows=per_process,
        tokens=longest,
        optimizer_states=2,
        precision="fp32",
        inputs=prepared.task.probe_inputs(prepared.processor),
    )
    facts = [
        ("task", f"{recipe.task.name}, metric {prepared.metric}"),
        ("checkpoint", f"{prepared.checkpoint.given} ({prepared.checkpoint.kind}), {type(model).__name__}"),
        ("optimizer steps", f"{steps} of {prepared.batch_size} rows: {steps * prepared.batch_size / rows:.2f} epochs"),
        (
            "evaluation",
            f"every {train.eval_every}" if train.eval_every == "epoch" else f"every {train.eval_every} steps",
        ),
        ("optimizer", f"{optim.name}, {optim.schedule} schedule, {factor.rise} steps of warm-up"),
        *_average_fact(prepared),
        ("engine", f"{train.engine} on {runtime.processes} process(es), {runtime.threads} threads each"),
        *adapter,
    ]
    coupled = choices.coupling(recipe, prepared.task)
    if coupled is not None:
        why = f"{coupled[0]}: results depend on the micro batch and on the number of processes"
        facts.append(("coupled rows", why))
    return PlanReport(
        facts=facts,
        learning_rates=[(at, str(step), f"{optim.learning_rate * factor(step):.3g}") for at, step in marks],
        layers=_layers(model, optim),
        memory_mb={name: size / 2**20 for name, size in memory.items()},
    )
