"""A stand-in task, so that these tests are about recipes and about no task in particular."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from nlp_finetune.errors import InputError
from nlp_finetune.recipe import Loaded, load

MINIMAL = """\
name: example
task: {name: sorting, text: [sentence], label: kind}
model: {checkpoint: some/bert, revision: abc, tokenizer: other/bert}
data: {source: some/data, config: small, limit: 50}
"""


class Sorting(BaseModel):
    """Options of a stand-in task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["sorting"] = "sorting"
    text: list[str] | None = Field(default=None, min_length=1, max_length=2, description="Text columns.")
    label: str | list[str] | None = Field(default=None, description="Label column.")
    max_length: int = Field(default=128, ge=4, description="Longest input in tokens.")
    on_long: Literal["truncate", "error"] = Field(default="truncate", description="What happens to long rows.")


TASKS: dict[str, type[BaseModel]] = {"sorting": Sorting}


@pytest.fixture
def minimal() -> str:
    return MINIMAL


@pytest.fixture
def tasks() -> dict[str, type[BaseModel]]:
    return TASKS


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Loaded]:
    """Load a recipe from its text: `read(text, "key=value", ..., demo=False)`."""

    def read_text(text: str, *overrides: str, demo: bool = False) -> Loaded:
        path = tmp_path / "example.yaml"
        path.write_text(text, encoding="utf-8")
        return load(
            str(path),
            overrides=overrides,
            demo=demo,
            task_options=TASKS.__getitem__,
            task_names=list(TASKS),
        )

    return read_text


@pytest.fixture
def refusal(read: Callable[..., Loaded]) -> Callable[..., str]:
    """Message with which a recipe is refused; fails where it is not."""

    def message(text: str, *overrides: str, demo: bool = False) -> str:
        with pytest.raises(InputError) as caught:
            read(text, *overrides, demo=demo)
        return str(caught.value)

    return message
