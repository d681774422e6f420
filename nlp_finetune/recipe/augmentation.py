"""The section `augment`: how training rows are changed at random, in each epoch anew."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nlp_finetune.recipe.section import BelowOne, Conflict, Section, Text

Probability = Annotated[float, Field(gt=0, le=1)]

TEXT = ("masked_lm", "synonym", "insert", "swap", "delete", "punctuation", "case", "typo")
"""Keys that change texts."""


class Augment(Section):
    """How training rows are changed at random, in each epoch anew; each way is off at 0."""

    probability: Probability = Field(default=1.0, description="Share of the training rows that an epoch changes.")
    delete: BelowOne = Field(default=0.0, description="Texts: share of the words that are left out.")
    swap: BelowOne = Field(default=0.0, description="Texts: share of the words that change places with others.")
    insert: BelowOne = Field(
        default=0.0,
        description="Texts: share of the words after which one is put: a synonym of a word of the text where there is "
        "a table, else a copy.",
    )
    synonym: BelowOne = Field(default=0.0, description="Texts: share of the words that a synonym replaces.")
    synonym_table: Text | None = Field(
        default=None, description="File of synonyms, a line a word: `good<TAB>fine, nice`; for synonym and insert."
    )
    masked_lm: BelowOne = Field(
        default=0.0, description="Texts: share of the words that a masked language model replaces by likely others."
    )
    masked_lm_checkpoint: Text | None = Field(
        default=None, description="Pretrained masked language model: a Hub id, a folder, or a run of masked_lm."
    )
    typo: BelowOne = Field(default=0.0, description="Texts: share of the words that get a typing error.")
    case: BelowOne = Field(default=0.0, description="Texts: share of the words that are written in another case.")
    punctuation: BelowOne = Field(default=0.0, description="Texts: share of the words that get a mark after them.")

    @property
    def text(self) -> list[str]:
        """Ways in which texts are changed, in the order in which they are applied."""
        return [name for name in TEXT if getattr(self, name)]

    @property
    def is_set(self) -> bool:
        """Whether anything is changed."""
        return bool(self.text)

    def conflicts(self) -> list[Conflict]:
        found = []
        if self.synonym and self.synonym_table is None:
            found.append(("synonym", "needs augment.synonym_table, a file of synonyms"))
        if self.synonym_table is not None and not (self.synonym or self.insert):
            found.append(("synonym_table", "only used with augment.synonym or augment.insert above 0"))
        if self.masked_lm and self.masked_lm_checkpoint is None:
            found.append(("masked_lm", "needs augment.masked_lm_checkpoint, a pretrained masked language model"))
        if self.masked_lm_checkpoint is not None and not self.masked_lm:
            found.append(("masked_lm_checkpoint", "only used with augment.masked_lm above 0"))
        if self.probability != 1.0 and not self.is_set:
            found.append(("probability", "nothing is changed: set augment.delete=0.1 or another way"))
        return found
