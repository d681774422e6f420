"""How the model was made, as tables and sentences of a card: base, data, settings, machine, time, command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nlp_finetune.recipe.schema import SECTIONS
from nlp_finetune.runs.card.energy import estimate
from nlp_finetune.runs.card.escaping import Markdown, code, escape, metric, plain, shell, table
from nlp_finetune.runs.card.facts import Facts
from nlp_finetune.runs.card.results import is_overconfident, number, percent, weak_classes
from nlp_finetune.runs.neutral import is_of_this_machine, last_part, public_words

_SHOWN_SETTINGS = ("task", "lora", "freeze", "loss", "optim", "augment", "train")
_PLUMBING = {
    "train.engine", "train.threads", "train.eval_batch_size", "train.save_every", "train.save_total", "train.log_every",
    "train.resume", "train.workers", "train.micro_batch_size", "train.eval_every", "train.bucket", "train.report_to",
}  # fmt: skip
"""Settings that do not change what is learned."""
_USUAL = {
    "loss.name", "optim.name", "optim.learning_rate", "optim.weight_decay", "optim.schedule", "optim.warmup",
    "optim.max_grad_norm", "train.batch_size", "train.epochs", "train.seed", "train.precision", "train.metric",
}  # fmt: skip
_KINDS = {
    "folder": "a local folder",
    "package": "from an installed package",
    "scratch": "weights drawn at random, nothing pretrained",
    "file": "local files",
    "demo": "part of the package nlp-finetune",
}
_MOST_EVALUATIONS = 30
_LEAKS = ("leakage", "leakage_conflicts")


def named(origin: Mapping[str, Any]) -> Markdown:
    """A base or a data set: a link to the Hub with its commit, or its name and what it is."""
    given, kind = plain(origin["given"]), origin.get("kind")
    if kind == "hub":
        name = given.partition(":")[0]
        commit = origin.get("revision")
        place = f"https://huggingface.co/{'datasets/' if origin.get('is_data') else ''}{name}"
        at = f", commit {code(commit)}" if commit else ""
        return Markdown(f"[{escape(given)}]({place}){at}")
    # A folder's path says nothing to others, and a lot about this machine.
    name = last_part(given) if kind in ("folder", "file") or is_of_this_machine(given) else given
    what = _KINDS.get(str(kind))
    return Markdown(f"{code(name)}" + (f" ({what})" if what else ""))


def data(facts: Facts) -> Markdown:
    """Splits with their sizes, and where exactly they come from."""
    origins, files = facts.check.get("origins") or {}, facts.data.get("files") or {}
    rows = [
        (split, f"{count:,}", _origin(str(origins.get(split, ""))), code(files[split]) if split in files else "")
        for split, count in (facts.check.get("splits") or {}).items()
    ]
    return table(("split", "rows", "from", "SHA-256"), rows)


def _origin(origin: str) -> str:
    return last_part(origin) if "/" in origin and not origin.partition(",")[2] else origin


def lengths(facts: Facts) -> Markdown:
    """How long the inputs are."""
    found = facts.check.get("lengths") or {}
    shares = list(dict.fromkeys(share for one in found.values() for share in one.get("percentiles") or {}))
    rows = [
        (split, *(one["percentiles"].get(share) for share in shares), one.get("longest"))
        for split, one in found.items()
        if one.get("percentiles")
    ]
    return table(("tokens of", *(f"{share} % have at most" for share in shares), "longest"), rows)


def truncation(facts: Facts) -> list[Markdown]:
    """What the longest input cuts off, split by split."""
    return [
        Markdown(f"{escape(split)}: {escape(found['summary'])}")
        for split, found in (facts.check.get("lengths") or {}).items()
        if found.get("summary")
    ]


def findings(facts: Facts) -> list[Markdown]:
    """What is wrong with the data, and that nothing leaks where nothing does."""
    found = facts.check.get("findings") or []
    worse = [escape(one["message"]) for one in found if one["level"] in ("warning", "error")]
    if facts.check and not any(one["code"] in _LEAKS for one in found):
        worse.append(
            Markdown("No row of one split is also in another, word for word or but for case, spacing and punctuation")
        )
    return worse


def settings(facts: Facts) -> Markdown:
    """What decided the result: the usual settings, and of the others those that are not as by default."""
    decided = {
        "loss.name": facts.decisions.get("loss"),
        "train.precision": facts.decisions.get("precision"),
        "train.metric": facts.metric,
    }
    rows = [
        (code(name), code(decided.get(name) or value if value == "auto" else value))
        for section in _SHOWN_SETTINGS
        for name, value in _leaves(section, facts.recipe.get(section))
        if name not in _PLUMBING and (name in _USUAL or _is_chosen(name, value))
    ]
    return table(("setting", "value"), rows)


def _is_chosen(name: str, value: Any) -> bool:
    """Whether a setting is not the default of its section."""
    section, _, key = name.partition(".")
    fields = SECTIONS[section].model_fields if section in SECTIONS else {}
    return key not in fields or value != fields[key].get_default(call_default_factory=True)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    elif value is not None and value != []:
        yield name, value


def size(facts: Facts) -> Markdown:
    """Parameters, and how many of them were trained."""
    figures = facts.metrics.get("train") or {}
    total, trained = figures.get("total_parameters"), figures.get("trainable_parameters")
    if not total or trained is None:
        return Markdown("")
    return Markdown(f"{total:,} parameters, {trained:,} of them trained ({percent(trained / total)})")


def architecture(facts: Facts) -> Markdown:
    """The model's class, and what its configuration says of its size."""
    config = facts.config
    names = config.get("architectures") or [config.get("architecture")]
    sizes = {
        "layers": config.get("num_hidden_layers", config.get("n_layer")),
        "wide": config.get("hidden_size", config.get("n_embd")),
        "attention heads": config.get("num_attention_heads", config.get("n_head")),
        "tokens in the vocabulary": config.get("vocab_size"),
        "positions": config.get("max_position_embeddings", config.get("n_positions")),
    }
    told = [f"{value:,} {what}" for what, value in sizes.items() if isinstance(value, int)]
    return Markdown(", ".join([code(names[0]), *told])) if names[0] else Markdown("")


def log(facts: Facts) -> Markdown:
    """Every evaluation while training: losses, and the metric that chose the checkpoint."""
    rows, loss = [], None
    best = (facts.metrics.get("best") or {}).get("step")
    for line in facts.history:
        loss = line.get("loss", loss)
        if isinstance(line.get("validation"), dict):
            scores = line["validation"]
            mark = " (best)" if line.get("step") == best else ""
            shown = (loss, scores.get("loss"), scores.get(facts.metric or ""))
            rows.append((f"{line.get('step')}{mark}", f"{line.get('epoch', 0):.2f}", *map(number, shown)))
    name = metric(facts.metric or "score")
    shown_rows = rows if len(rows) <= _MOST_EVALUATIONS else rows[:: -(-len(rows) // _MOST_EVALUATIONS)]
    return table(("step", "epoch", "training loss", "validation loss", Markdown(f"validation {name}")), shown_rows)


def machine(facts: Facts) -> Markdown:
    """Versions and hardware."""
    found = facts.environment
    packages = found.get("packages") or {}
    hardware = ", ".join(map(str, found.get("devices") or [])) or found.get("processor")
    rows = [
        ("hardware", f"{hardware}; {found.get('cores')} CPU cores; {found.get('processes', 1)} process(es)"),
        ("system", found.get("platform")),
        ("Python", found.get("python")),
        *((name, version) for name, version in packages.items()),
    ]
    return table(("", "version"), [(name, value) for name, value in rows if value]) if found else Markdown("")


def cost(facts: Facts) -> list[Markdown]:
    """Time, speed and memory, and an estimate of energy."""
    figures = facts.metrics.get("train") or {}
    seconds = figures.get("seconds")
    if not seconds:
        return []
    lines = [f"{seconds:,.0f} s of training steps ({figures.get('steps', 0):,} steps"]
    if figures.get("samples_per_second"):
        lines[0] += f", {figures['samples_per_second']:,.1f} rows/s"
    if figures.get("tokens_per_second"):
        lines[0] += f", {figures['tokens_per_second']:,.0f} tokens/s without padding"
    if figures.get("model_flops_utilization"):
        lines[0] += f", {figures['model_flops_utilization']:.1%} of the peak of the GPUs in use (model FLOPs)"
    lines[0] += f", {figures.get('precision', 'fp32')}, engine {escape(figures.get('engine', ''))})"
    if figures.get("peak_memory_mb"):
        lines.append(f"Peak memory of the largest process: {figures['peak_memory_mb']:,.0f} MiB")
    environment = facts.environment
    if environment:
        used = estimate(
            seconds,
            devices=environment.get("devices") or [],
            threads=int(facts.decisions.get("threads") or 1),
            processes=int(environment.get("processes") or 1),
        )
        lines.append(f"Energy, estimated and not measured: {used.watt_hours:,.2f} Wh ({escape(used.assumption)})")
    return [Markdown(line) for line in lines]


def command(facts: Facts) -> str:
    """The command that was run, without paths of this machine; empty where it is not known."""
    words = facts.environment.get("command") or []
    return shell(["python", *public_words(words)]) if words else ""


def seeds(facts: Facts) -> Markdown:
    """The seed, and how much others change the scores, where that was measured."""
    compared = facts.metrics.get("imbalance")
    if compared:
        return Markdown(
            f"The loss is one of {len(compared['scores'])} that were compared on the validation rows: "
            f"{escape(compared['why'])}. The test rows had no part in it"
        )
    kind = "folds" if "folds" in facts.metrics else "seeds"
    found = facts.metrics.get(kind) or {}
    spread = (found.get(facts.split) or {}).get(facts.metric)
    if spread:
        range_ = f"{spread['min']:.4f} to {spread['max']:.4f}, mean {spread['mean']:.4f}, deviation {spread['std']:.4f}"
        which = f"{len(found[kind])} seeds ({escape(', '.join(map(str, found[kind])))})"
        kept = f"The model is that of seed {escape(found['best'])}, the best on validation"
        if kind == "folds":
            which = f"{len(found[kind])}-fold cross-validation"
            kept = (
                f"The model is that of fold {escape(found['best'])}, the best on its own validation rows, which "
                "flatters it: the mean is the score to expect"
            )
        return Markdown(f"{which}: {facts.split} {escape(facts.metric)} {range_}. {kept}")
    seed = facts.section("train").get("seed")
    return Markdown(f"Seed {escape(seed)}, one run: how much another seed changes the scores was not measured")


def limits(facts: Facts) -> list[Markdown]:
    """What the scores do not promise, as far as the run itself shows it."""
    splits = facts.check.get("splits") or {}
    found = []
    if splits.get("train"):
        found.append(
            f"Trained on {splits['train']:,} rows; the scores are those of rows from the same source, and rows from "
            "elsewhere may be harder."
        )
    if facts.split == "validation":
        found.append(
            "There was no test split: the validation rows, whose scores are shown, also chose the best checkpoint."
        )
    soup = facts.metrics.get("soup") or {}
    if len(soup.get("steps", [])) > 1:
        found.append(
            f"The weights are the mean of those of {len(soup['steps'])} checkpoints that the validation rows chose, so "
            f"their score ({soup['value']:.4f}, the best checkpoint alone {soup['alone']:.4f}) is a little too good."
        )
    longest = facts.section("task").get("max_length")
    if longest and facts.section("task").get("on_long", "truncate") in ("truncate", "head_tail"):
        found.append(f"Of inputs longer than {longest} tokens a part is not read.")
    threshold = (facts.task.get("facts") or {}).get("threshold")
    if threshold is not None and len(facts.labels) == 2:
        found.append(
            f"{escape(facts.labels[1])} is predicted where its probability is at least {threshold:.4g}. That threshold "
            f"was tuned on the validation rows for {escape(facts.section('task').get('tune_threshold'))}, so the "
            "scores of those rows flatter it; programs that take the likelier class get other predictions."
        )
    weak = weak_classes(facts)
    if weak:
        found.append(f"Less than half of the rows of these classes are found: {', '.join(map(escape, weak[:10]))}.")
    if is_overconfident(facts):
        found.append("Its confidence is not a probability (see Calibration).")
    if facts.section("model").get("trust_remote_code"):
        found.append(
            "The base model's own code was run (`model.trust_remote_code`), and runs wherever this model is loaded: "
            "read it first."
        )
    if not facts.metrics.get("robustness"):
        found.append("How it does on misspelt, adversarial or otherwise changed inputs was not measured.")
    return [Markdown(line) for line in found]


def licences(facts: Facts) -> list[Markdown]:
    """Licences of base and data, or that they are not known."""
    found = []
    for what, origin in (("Base model", facts.base), ("Data", facts.data)):
        licence = origin.get("licence")
        if isinstance(licence, list):
            licence = ", ".join(map(str, licence))
        if not licence and origin["kind"] in ("demo", "scratch"):
            continue
        found.append(Markdown(f"{what}: {escape(licence) if licence else 'not known; ask its owner'}"))
    return found
