"""What training would do, without loading weights: the other half of the `check` verb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlp_finetune import choices
from nlp_finetune.check import Section
from nlp_finetune.learning.schedules import ScheduleFactor
from nlp_finetune.models import own_head, summary
from nlp_finetune.models.settings import is_foreign
from nlp_finetune.runtime import Runtime

if TYPE_CHECKING:
    from nlp_finetune.preparation import Prepared
    from nlp_finetune.recipe import Optim, Recipe


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


def _series_fact(recipe: Recipe) -> list[tuple[str, str]]:
    """That the recipe makes several runs, of which this plan is one."""
    if recipe.train.seeds is not None:
        return [("runs", f"{len(recipe.train.seeds)}, one a seed; the plan is that of each")]
    if recipe.data.folds is not None and recipe.data.fold is None:
        return [("runs", f"{recipe.data.folds}, one a fold of the training rows; the plan is of one, with other rows")]
    if recipe.loss.imbalance is not None:
        return [
            ("runs", "one for each way to treat rare classes, compared on validation; the plan is of the plain loss")
        ]
    return []


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
        *_series_fact(recipe),
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
