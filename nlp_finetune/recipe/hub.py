"""The section `hub`: where a finished run is pushed."""

from __future__ import annotations

from pydantic import Field

from nlp_finetune.recipe.section import Conflict, Section, Text


class Hub(Section):
    """Where a finished run is pushed."""

    repo_id: Text | None = Field(
        default=None, description="Repository OWNER/NAME on the Hub that the finished run is pushed to; null is none."
    )
    private: bool = Field(default=True, description="Whether the repository is private.")
    merge: bool = Field(
        default=False, description="Whether a run with adapters is pushed as a whole model and not as an adapter."
    )
    card: Text | None = Field(
        default=None,
        description="Markdown file with your own text for the model card, and in its YAML header your own fields.",
    )

    def conflicts(self) -> list[Conflict]:
        if self.repo_id is not None:
            return []
        needing = {"private": not self.private, "merge": self.merge}
        return [(key, "there is no hub.repo_id to push to") for key, is_set in needing.items() if is_set]
