"""Labels of a head that the checkpoint already has: kept, put in another order, or dropped, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.models.heads import output_layer, shorten
from nlp_finetune.models.weights import Loaded, read_tensor

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class OldHead:
    """Output layer of a checkpoint's head: its tensors, one row per label, by parameter name."""

    labels: list[str]
    tensors: dict[str, torch.Tensor]

    def copy_rows(self, model: PreTrainedModel, match: Mapping[int, int]) -> None:
        """Write rows of the old head into the model's: row of the new head -> row of the old one."""
        import torch

        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                for row, before in match.items():
                    parameters[name][row] = tensor[before]

    def values_of(self, match: Mapping[int, int]) -> int:
        """How many single values the matched rows hold."""
        return len(match) * sum(tensor[0].numel() for tensor in self.tensors.values())


def find_old_head(loaded: Loaded, folder: Path, raw: Mapping[str, Any]) -> OldHead | None:
    """The checkpoint's output layer, if it has one like the model's but for the number of rows.

    `raw` is the checkpoint's own `config.json`. A layer of another size was not loaded; its tensors
    are read from the files.
    """
    layer = output_layer(loaded.model)
    if layer is None:
        return None
    name, linear = layer
    tensors = {}
    for part, parameter in linear.named_parameters():
        full = f"{name}.{part}"
        before = None if full in loaded.absent else parameter.detach().clone()
        if full in loaded.reshaped:
            before = read_tensor(folder, full)
        if before is None or before.shape[1:] != parameter.shape[1:]:
            return None
        tensors[full] = before
    return OldHead(old_labels(raw, len(tensors[f"{name}.weight"])), tensors)


def old_labels(raw: Mapping[str, Any], count: int) -> list[str]:
    """Label names of a checkpoint's `count` outputs; `LABEL_0`, ... where its config.json has none."""
    default = [f"LABEL_{i}" for i in range(count)]
    names = raw.get("id2label") or {}
    by_row = {int(row): str(name) for row, name in names.items() if str(row).isdecimal()}
    return [by_row[i] for i in range(count)] if sorted(by_row) == list(range(count)) else default


def match_labels(old: Sequence[str], new: Sequence[str]) -> dict[int, int]:
    """Row of the new head -> row of the old one, for names that are the same (up to case, if unambiguous).

    Numbered names (`LABEL_0`) say nothing but the count, so they match only where the counts are equal.
    """
    if numbered(old) and numbered(new) and len(old) != len(new):
        return {}
    ignoring_case = [[name.strip().casefold() for name in names] for names in (old, new)]
    if all(len(set(names)) == len(names) for names in ignoring_case):
        old, new = ignoring_case
    rows = {name: row for row, name in enumerate(old)}
    return {row: rows[name] for row, name in enumerate(new) if name in rows}


def numbered(names: Sequence[str]) -> bool:
    """Whether the names are the library's defaults, `LABEL_0`, `LABEL_1`, ..."""
    return list(names) == [f"LABEL_{row}" for row in range(len(names))]


def describe_match(old: Sequence[str], new: Sequence[str], match: Mapping[int, int]) -> str:
    """One line: which labels of the checkpoint's head go on, and which start anew."""
    if not match:
        return f"head: starts anew, the checkpoint's labels ({shorten(old)}) are not {shorten(new)}"
    fresh = [name for row, name in enumerate(new) if row not in match]
    gone = [name for row, name in enumerate(old) if row not in match.values()]
    if not fresh and not gone:
        if all(row == before for row, before in match.items()):
            return f"head: the checkpoint has these {len(new)} labels, kept as they are"
        return f"head: the checkpoint has these {len(new)} labels, its rows put into the order {shorten(new)}"
    line = f"head: taken over by name: {shorten([new[row] for row in match])}"
    line += f"; new: {shorten(fresh)}" if fresh else ""
    return line + (f"; left out: {shorten(gone)}" if gone else "")
