"""The section `freeze`: what does not train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, create_model

from nlp_finetune.recipe.section import Conflict, Count, Positive, Section, Text


class Until(Section):
    """Stages that train more and more layers until a score is reached."""

    target: float = Field(description="Score of the validation rows that is good enough.")
    metric: Text = Field(default="auto", description="Metric of the target; `auto` takes train.metric.")
    patience: Count = Field(default=1, description="Stages in a row without a new best before the series ends.")


class _Freeze(Section):
    """What stays as the checkpoint has it; frozen blocks run without dropout."""

    layers: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Freeze the embeddings and so many blocks from below; null freezes none."
    )
    patterns: list[Text] = Field(
        default_factory=list, description="Freeze parameters by their names, as globs: `*.attention.*`."
    )

    gradual: Count | Literal["epoch"] | None = Field(
        default=None,
        description="Train the head first, and from the top down one more group of layers every so many steps or each "
        "epoch; null trains all at once.",
    )

    until: Until | None = Field(
        default=None,
        description="Train the head, then one group of layers more in a run of its own each time, until `target` of "
        "`metric` is reached or `patience` stages bring nothing: `{target: 0.93}`; null trains once.",
    )
    cache: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether what frozen layers make of each row is computed once and kept on disk; `auto` does so "
        "where it pays and is exact.",
    )
    cache_limit_gb: Positive = Field(
        default=10.0, description="Most that these files may take on disk, those of former runs included."
    )

    def conflicts(self) -> list[Conflict]:
        if self.until is not None and (self.all_but_head or self.gradual is not None):
            return [("until", "decides itself what trains: leave out freeze.except and freeze.gradual")]
        if self.cache == "off" and self.cache_limit_gb != type(self).model_fields["cache_limit_gb"].default:
            return [("cache_limit_gb", "there is no cache to limit where freeze.cache is off")]
        if self.cache == "on" and not (self.until or self.layers is not None or self.patterns or self.all_but_head):
            return [("cache", "nothing is frozen for good whose output could be kept; set freeze.layers")]
        if self.all_but_head and self.gradual is not None:
            return [("gradual", "there is nothing to thaw where freeze.except leaves the head alone")]
        if self.all_but_head and (self.layers is not None or self.patterns):
            return [("except", "freezes everything but the head: leave out freeze.layers and freeze.patterns")]
        return []

    @property
    def all_but_head(self) -> bool:
        """Whether the head alone trains."""
        return getattr(self, "except", None) == "head"

    @property
    def is_set(self) -> bool:
        """Whether anything is frozen."""
        return self.layers is not None or bool(self.patterns) or self.all_but_head or self.gradual is not None


if TYPE_CHECKING:
    Freeze = _Freeze
else:
    # `except` is a word of the language, so no class body can declare it.
    Freeze = create_model(
        "Freeze",
        __base__=_Freeze,
        __doc__=_Freeze.__doc__,
        **{
            "except": (
                Literal["head"] | None,
                Field(default=None, description="`head` freezes everything but the head."),
            )
        },
    )
