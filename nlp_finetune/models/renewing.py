"""The top of a pretrained model drawn anew before training.

Source: Zhang et al. 2021, Revisiting Few-sample BERT Fine-tuning: the top layers are specialised on the
pretraining task, and fine-tuning on few rows goes better without them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nlp_finetune.errors import InputError
from nlp_finetune.models import heads
from nlp_finetune.models.loading import new_parameters
from nlp_finetune.models.summary import Part, parts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def top_layers(model: PreTrainedModel, count: int) -> list[Part]:
    """The last `count` blocks of a model, and its pooler if it has one, in the order of the model.

    Raises `InputError` where there are fewer blocks and where layers share one.
    """
    found = [part for part in parts(model) if any(True for _ in part.module.parameters())]
    blocks = [part for part in found if part.kind == "block"]
    if any(block.repeated > 1 for block in blocks):
        raise InputError("optim.reinit_top_layers: the layers of this model share one block, so it has no top ones.")
    if count > len(blocks):
        raise InputError(f"optim.reinit_top_layers {count}: this model ({model.config.model_type}) has {len(blocks)}.")
    return [part for part in found if part.kind == "pooler" or part in blocks[len(blocks) - count :]]


def draw_top_layers(model: PreTrainedModel, count: int, *, seed: int, say: Callable[[str], None]) -> None:
    """Draw them as the model draws them when nothing is pretrained, in place, BatchNorm's statistics included.

    They count as new from here on: freezing all but the head leaves them. Of a model without memory they only
    are marked so.
    """
    chosen = top_layers(model, count)
    ids = {id(tensor) for part in chosen for tensor in [*part.module.parameters(), *part.module.buffers()]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in ids}
    if not next(model.parameters()).is_meta:
        buffers = {name for name, buffer in model.named_buffers() if id(buffer) in ids}
        heads.draw(model, names | buffers, head_init="default", seed=seed)
    model._new_parameters = new_parameters(model) | names
    numbers = sum(model.get_parameter(name).numel() for name in names)
    say(f"drawn anew: {heads.shorten([part.name for part in chosen])}; {numbers:,} parameters (seed {seed})")


def check_trained(model: PreTrainedModel, count: int) -> None:
    """Raise `InputError` where what was drawn anew is frozen."""
    still = [p.name for p in top_layers(model, count) if not any(x.requires_grad for x in p.module.parameters())]
    if still:
        raise InputError(
            f"optim.reinit_top_layers: {heads.shorten(still)} would be drawn anew and then stay frozen. Freeze fewer "
            "layers, or leave one of both out."
        )
