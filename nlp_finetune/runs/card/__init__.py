"""The model card: README.md of a run folder and of its repository, written from what was measured.

    write(folder)                        at the end of a run
    for_repository(folder, ...)          the same for a repository: its name, its files, no local paths

A card that its user has edited is not written again: the last line of ours holds a hash of the rest.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.runs.card import making, results
from nlp_finetune.runs.card.escaping import Markdown, code, escape, fenced, metric, plain, shell
from nlp_finetune.runs.card.facts import Facts, read
from nlp_finetune.runs.card.metadata import metadata
from nlp_finetune.runs.card.usage import snippet
from nlp_finetune.runs.folder import RunFolder, write_text

if TYPE_CHECKING:
    from jinja2 import Template

_HEADER = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)
_SEAL = re.compile(r"\n<!-- nlp-finetune: edit this card and it is pushed as you leave it \(([0-9a-f]{16})\) -->\n*\Z")
_WHAT = {
    "token-classification": "It finds names and other marked passages in text, token by token.",
    "question-answering": "It finds the answer to a question in a text.",
    "multiple-choice": "It chooses one of several answers.",
    "fill-mask": "It fills in masked words.",
    "text-generation": "It continues a text.",
    "text2text-generation": "It turns one text into another.",
    "sentence-similarity": "It makes vectors of texts: texts that mean the same have vectors of the same direction.",
}


def write(folder: RunFolder) -> None:
    """Write the card of a finished run into its folder, unless its user has edited the one that is there."""
    if folder.card.is_file() and is_edited(folder.card.read_text(encoding="utf-8")):
        return
    facts = read(folder, folder.model)
    title = str(facts.recipe.get("name") or folder.path.name)
    write_text(folder.card, render(facts, title=title, address=str(folder.model), run=str(folder)))


def for_repository(folder: RunFolder, weights: Path, *, repo_id: str) -> str:
    """The card for a repository that holds a run's files, the model's from `weights`."""
    facts = read(folder, weights)
    return render(facts, title=repo_id.partition("/")[2], address=repo_id, run=repo_id)


def is_edited(card: str) -> bool:
    """Whether a card is not, letter for letter, as it was written here."""
    seal = _SEAL.search(card)
    return seal is None or seal[1] != _hash(card[: seal.start()])


def render(facts: Facts, *, title: str, address: str, run: str) -> str:
    """Text of a card: `address` is what loads the model in other libraries, `run` in this one."""
    own, fields = _own(facts.own_text)
    header = metadata(facts, name=title, own=fields)
    first = own if own.startswith("# ") else f"# {escape(title)}\n\n{own}"
    body = _template().render(**_values(facts, address=address, run=run), first=Markdown(first))
    text = f"---\n{header}\n---\n\n{_tidy(body)}"
    return f"{text}\n<!-- nlp-finetune: edit this card and it is pushed as you leave it ({_hash(text)}) -->\n"


def read_own(path: str) -> str:
    """The user's own text for a card; raises `InputError` where it can't be read."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InputError(f"hub.card {path}: can't be read ({reason}). Give a Markdown file.") from error


def skeleton(own_card: str | None) -> str:
    """A card before there is anything to tell: its header alone, with the fields of the user's text.

    Raises `InputError` where the user's file can't be read, or its header is no header of a card.
    """
    own, fields = _own(read_own(own_card)) if own_card is not None else ("", {})
    return f"---\n{metadata(_NOTHING, name='model', own=fields)}\n---\n\n{own}\n"


def _own(text: str) -> tuple[str, dict[str, Any]]:
    """A user's text without its header, and the fields in that header."""
    import yaml

    header = _HEADER.match(text)
    if header is None:
        return text.strip(), {}
    try:
        fields = yaml.safe_load(header[1]) or {}
    except yaml.YAMLError as error:
        raise InputError(f"hub.card: its YAML header can't be read ({plain(error)}).") from error
    if not isinstance(fields, dict):
        raise InputError("hub.card: its YAML header holds no fields.")
    return text[header.end() :].strip(), fields


def _values(facts: Facts, *, address: str, run: str) -> dict[str, Any]:
    """What the template shows."""
    program = "nlp-finetune"
    python = snippet(facts, address, examples=facts.check.get("example") or [])
    commands = [
        f"{program} predict {shell([run])} --input FILE.csv --output predictions.csv",
        f"{program} evaluate {shell([run])} --data FILE.csv",
    ]
    return {
        "what": _what(facts),
        "headline": results.headline(facts),
        "python": fenced(python, "python") if python else "",
        "shell": Markdown(f"With nlp-finetune, for whole files:\n\n{fenced(chr(10).join(commands), 'bash')}"),
        "labels": results.labels(facts),
        "chosen": _chosen(facts),
        "scores": results.scores(facts),
        "split": facts.split,
        "classes": results.classes(facts),
        "confusions": results.confusions(facts),
        "calibration": results.calibration(facts),
        "reliability": results.reliability(facts),
        "by_length": results.by_length(facts),
        "robustness": results.robustness(facts),
        "data_name": making.named({**facts.data, "is_data": True}),
        "data": making.data(facts),
        "lengths": making.lengths(facts),
        "truncation": making.truncation(facts),
        "findings": making.findings(facts),
        "base": making.named(facts.base),
        "size": making.size(facts),
        "architecture": making.architecture(facts),
        "log": making.log(facts),
        "settings": making.settings(facts),
        "seeds": making.seeds(facts),
        "cost": making.cost(facts),
        "machine": making.machine(facts),
        "again": _again(facts),
        "limits": making.limits(facts),
        "licences": making.licences(facts),
    }


def _what(facts: Facts) -> Markdown:
    """One or two sentences: what the model does, and what it is made of."""
    labels, inputs = facts.labels, facts.check.get("example") or []
    given = (
        "a pair of texts" if len(inputs) == 2 else "an image" if facts.pipeline == "image-classification" else "a text"
    )
    if facts.problem == "regression":
        does = f"It gives {given} a number."
    elif facts.problem == "multi_label_classification":
        does = f"It gives {given} any of {len(labels)} labels."
    elif facts.pipeline in ("text-classification", "image-classification"):
        does = f"It gives {given} one of {len(labels)} labels."
    else:
        does = _WHAT.get(facts.pipeline or "", "")
    kind = "An adapter (LoRA or a relative, loaded with peft) for" if facts.is_adapter else "Fine-tuned from"
    described = plain(facts.recipe.get("description") or "")
    about = f" Recipe {code(facts.recipe.get('name', ''))}: {escape(described)}." if described else ""
    return Markdown(
        f"{does} {kind} {making.named(facts.base)} on {making.named({**facts.data, 'is_data': True})}.{about}".strip()
    )


def _chosen(facts: Facts) -> Markdown:
    """Which weights the scores belong to."""
    best = facts.metrics.get("best") or {}
    by = f" at step {best.get('step')}, chosen by validation {metric(str(best.get('metric')))}" if best else ""
    return Markdown(
        f"All scores are those of the weights beside this card (the best checkpoint{by}), loaded back from disk before "
        "they were measured. Intervals are 95 % bootstrap intervals over the rows. The rivals learned from the same "
        "training rows."
    )


def _again(facts: Facts) -> Markdown:
    """How the run is repeated."""
    has_data = facts.data["kind"] in ("hub", "demo")
    first = "`recipe.yaml` beside this card holds every setting" + (
        ":" if has_data else ", but not the data: name your copy of them (their SHA-256 is above)."
    )
    words = ["nlp-finetune", "train", "--recipe", "recipe.yaml", *([] if has_data else ["data.source=FILE"])]
    started = making.command(facts)
    was = f"\n\nThe run was started with\n\n{fenced(started, 'bash')}" if started else ""
    return Markdown(f"{first}\n\n{fenced(shell([*words, 'output_dir=again']), 'bash')}{was}")


@lru_cache(maxsize=1)
def _template() -> Template:
    """The template; what it prints is escaped unless it is `Markdown`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("nlp_finetune.runs.card", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=escape,
        # HTML entities are not what keeps Markdown apart: `finalize` is.
        autoescape=False,
    )
    return environment.get_template("card.md.j2")


def _tidy(text: str) -> str:
    """No more than one empty line in a row."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_NOTHING = Facts({}, {}, {}, {}, {}, {}, {}, {}, {}, [], is_adapter=False, own_text="")
