"""What is known of a checkpoint besides its weights: commit, licence, language, for a model card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nlp_finetune.models import hub
from nlp_finetune.models.checkpoint import Checkpoint

_HEADER = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)


def about(checkpoint: Checkpoint) -> dict[str, Any]:
    """Kind and given name of a checkpoint, and where they are known `revision`, `licence` and `language`.

    Asks the Hub nothing that was not asked when the checkpoint was loaded.
    """
    found: dict[str, Any] = {"kind": checkpoint.kind, "given": checkpoint.given}
    if checkpoint.kind == "hub":
        found["revision"] = hub.commit_of(checkpoint)
        return {**found, **_chosen(hub.card_fields(checkpoint.location, checkpoint.revision))}
    if checkpoint.kind in ("scratch", "torchvision", "file"):
        return found
    folder = Path(checkpoint.location)
    # The card of a run is beside its model's folder.
    card = next((file for file in (folder / "README.md", folder.parent / "README.md") if file.is_file()), None)
    return {**found, **(_chosen(_header(card)) if card is not None else {})}


def _chosen(fields: dict[str, Any]) -> dict[str, Any]:
    named = {"licence": fields.get("license"), "language": fields.get("language")}
    return {name: value for name, value in named.items() if isinstance(value, str | list) and value}


def _header(card: Path) -> dict[str, Any]:
    import yaml

    try:
        header = _HEADER.match(card.read_text(encoding="utf-8"))
        fields = yaml.safe_load(header[1]) if header is not None else {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}  # somebody else's card, and nothing depends on it
    return fields if isinstance(fields, dict) else {}
