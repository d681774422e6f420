"""The section `augment`: how training rows are changed at random, in each epoch anew."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from nlp_finetune.recipe.section import BelowOne, Conflict, Positive, Section, Text

Share = Annotated[float, Field(gt=0, le=1)]
ZeroToOne = Annotated[float, Field(ge=0, le=1)]

TEXT = ("masked_lm", "synonym", "insert", "swap", "delete", "punctuation", "case", "typo")
"""Keys that change texts."""
IMAGES = (
    "crop", "padded_crop", "resize", "horizontal_flip", "vertical_flip", "rotation", "trivial_augment", "rand_augment",
    "color_jitter", "noise", "erasing",
)  # fmt: skip
"""Keys that change images."""
_FRAMES = ("crop", "padded_crop", "resize")
_POLICIES = ("trivial_augment", "rand_augment")


class Augment(Section):
    """How training rows are changed at random, in each epoch anew; each way is off at 0."""

    probability: Share = Field(default=1.0, description="Share of the training rows that an epoch changes.")
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

    crop: list[Share] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="Images: least and greatest share of the area in a random part, resized to what the model sees.",
    )
    padded_crop: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Images: pixels by which the image is moved at most, up or down and sideways."
    )
    resize: list[Positive] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="Images: least and greatest factor of the size; cropped or padded to what the model sees.",
    )
    horizontal_flip: ZeroToOne = Field(default=0.0, description="Images: share that is mirrored, left to right.")
    vertical_flip: ZeroToOne = Field(default=0.0, description="Images: share that is turned upside down.")
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        default=0.0, description="Images: most degrees by which they are rotated, to either side."
    )
    trivial_augment: bool = Field(
        default=False, description="Images: one of 14 changes of any strength for each (TrivialAugment)."
    )
    rand_augment: Annotated[int, Field(ge=0, le=30)] = Field(
        default=0, description="Images: strength of two of 14 changes for each (RandAugment); 9 is usual."
    )
    color_jitter: ZeroToOne = Field(
        default=0.0, description="Images: how far brightness, contrast and saturation change, and a quarter of it hue."
    )
    noise: ZeroToOne = Field(default=0.0, description="Images: standard deviation of noise, with white at 1.")
    erasing: ZeroToOne = Field(default=0.0, description="Images: share in which a rectangle is blotted out.")

    @property
    def text(self) -> list[str]:
        """Ways in which texts are changed, in the order in which they are applied."""
        return [name for name in TEXT if getattr(self, name)]

    @property
    def images(self) -> dict[str, Any]:
        """Ways in which images are changed and their strengths, in the order in which they are applied."""
        return {name: value for name in IMAGES if (value := getattr(self, name))}

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
        if self.probability != 1.0 and not (self.text or self.images):
            found.append(("probability", "nothing is changed: set augment.delete=0.1 or another way"))
        for key in ("crop", "resize"):
            least_most = getattr(self, key)
            if least_most is not None and least_most[0] > least_most[1]:
                found.append((key, f"{least_most}: the least comes first"))
        for several in (_FRAMES, _POLICIES):
            chosen = [key for key in several if getattr(self, key)]
            found += [(key, f"not together with {chosen[0]}: choose one") for key in chosen[1:]]
        return found
