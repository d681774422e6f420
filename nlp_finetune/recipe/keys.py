"""Which keys a recipe has, and what a wrong key was meant to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nlp_finetune.recipe import describing
from nlp_finetune.recipe.problems import closest
from nlp_finetune.recipe.schema import OPTIONAL, SECTIONS, Recipe

Path = tuple[str, ...]

ELSEWHERE = {
    "lr": "optim.learning_rate",
    "lr_scheduler_type": "optim.schedule",
    "warmup_ratio": "optim.warmup",
    "warmup_steps": "optim.warmup",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "per_device_train_batch_size": "train.micro_batch_size",
    "per_device_eval_batch_size": "train.eval_batch_size",
    "early_stopping_patience": "train.patience",
    "model_name_or_path": "model.checkpoint",
    "dataset_name": "data.source",
    "max_seq_length": "task.max_length",
    "lora_r": "lora.rank",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "target_modules": "lora.targets",
}
"""Names that other programs use, and where the same thing stands here."""


@dataclass(frozen=True)
class Keys:
    """All keys of a recipe whose task takes `options`; None where the task is not known."""

    options: type[BaseModel] | None
    sections: Mapping[str, Mapping[str, FieldInfo] | None] = field(init=False)

    def __post_init__(self) -> None:
        task = self.options.model_fields if self.options else None
        found: dict[str, Mapping[str, FieldInfo] | None] = {name: kind.model_fields for name, kind in SECTIONS.items()}
        object.__setattr__(self, "sections", {"task": task, **found})

    def field(self, path: Path) -> FieldInfo | None:
        """Schema of the field at or above `path`; None where the schema knows none."""
        if path[0] not in self.sections:
            return Recipe.model_fields.get(path[0])
        section = self.sections[path[0]]
        return section.get(path[1]) if section and len(path) > 1 else None

    def is_field(self, path: Path) -> bool:
        """Whether a path is as deep as a field, and not inside a mapping that a field takes."""
        return len(path) == (2 if path[0] in self.sections else 1)

    def is_known(self, path: Path) -> bool:
        """Whether a value may be set at `path`."""
        if not all(path):
            return False
        if path[0] in self.sections and (self.sections[path[0]] is None or path in {(name,) for name in OPTIONAL}):
            return True
        found = self.field(path)
        if found is None:
            return False
        return self.is_field(path) or (path[0] != "demo" and describing.takes_mapping(found))

    def wrong(self, path: Path) -> tuple[str, str | None]:
        """What to say about an unknown key, and the dotted path that was probably meant."""
        if path[0] not in self.sections:
            return self._wrong_top(path)
        section = self.sections[path[0]] or {}
        key = path[1] if len(path) > 1 else ""
        if key in section:
            return f"{path[0]}.{key} has no keys of its own", None
        homes = self._homes(key)
        near = closest(key, section)
        for home in homes:
            if home.startswith(f"{path[0]}."):
                near = home.partition(".")[2]
        if near:
            return f"unknown key; did you mean '{near}'?", f"{path[0]}.{near}"
        if homes:
            return _belongs(key, homes), homes[0]
        return f"unknown key; {path[0]} has {', '.join(section)}", None

    def _wrong_top(self, path: Path) -> tuple[str, str | None]:
        key = path[0]
        if key in Recipe.model_fields:
            return f"{key} has no keys of its own", None
        if len(path) == 1 and (homes := self._homes(key)):
            return _belongs(key, homes), homes[0]
        if name := closest(key, Recipe.model_fields):
            return f"unknown key; did you mean '{'.'.join([name, *path[1:]])}'?", None
        return f"unknown key; a recipe has {', '.join(Recipe.model_fields)}", None

    def _homes(self, key: str) -> list[str]:
        """Dotted paths at which a key called `key`, or what other programs call so, does stand."""
        homes = [f"{name}.{key}" for name, section in self.sections.items() if section and key in section]
        if not homes and key in ELSEWHERE:
            return [ELSEWHERE[key]]
        if not homes and key in Recipe.model_fields and key not in self.sections:
            return [key]
        return homes


def _belongs(key: str, homes: list[str]) -> str:
    owners = [home.rpartition(".")[0] or "the top of the recipe" for home in homes]
    name = homes[0].rpartition(".")[2]
    called = "" if name == key else f", where it is called {name}"
    return f"unknown key: {key} belongs to {' or '.join(owners)}{called}"
