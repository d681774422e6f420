"""The section `regularize`: what keeps a model from learning its training rows by heart."""

from __future__ import annotations

from pydantic import Field

from nlp_finetune.recipe.section import Conflict, NotNegative, Positive, Section


class Regularize(Section):
    """What is asked of a model beyond fitting its training rows; each is off at 0."""

    r_drop: NotNegative = Field(
        default=0.0, description="Weight of the difference between two passes with other dropout (R-Drop)."
    )
    adversarial: NotNegative = Field(
        default=0.0, description="Length of the step by which word embeddings are moved to raise the loss (FGM)."
    )
    neftune: NotNegative = Field(
        default=0.0, description="Size of the uniform noise on word embeddings in training (NEFTune's alpha)."
    )
    l2_sp: NotNegative = Field(
        default=0.0, description="Strength of the pull of the backbone towards its pretrained weights (L2-SP)."
    )

    supervised_contrastive: NotNegative = Field(
        default=0.0,
        description="Weight of the contrast between rows of a micro batch: those of one class close, others apart.",
    )
    temperature: Positive = Field(
        default=0.3, description="How sharply close rows are told apart; for supervised_contrastive."
    )

    mixup: NotNegative = Field(
        default=0.0,
        description="Alpha of mixup: rows are mixed with others by shares from Beta(alpha, alpha); 0.2 is usual.",
    )
    cutmix: NotNegative = Field(
        default=0.0, description="Alpha of CutMix: parts of images come from others; 1 is usual. With mixup: either."
    )

    @property
    def mixes(self) -> str | None:
        """The key that mixes rows, if any does."""
        return "mixup" if self.mixup else "cutmix" if self.cutmix else None

    def conflicts(self) -> list[Conflict]:
        for other in ("r_drop", "adversarial", "supervised_contrastive"):
            if self.mixes and getattr(self, other):
                return [(self.mixes, f"not together with {other}, which takes rows for what they are; choose one")]
        if self.r_drop and self.adversarial:
            return [("adversarial", "not together with r_drop: each runs the model twice a step; choose one")]
        if self.temperature != 0.3 and not self.supervised_contrastive:
            return [("temperature", "needs regularize.supervised_contrastive above 0")]
        return []
