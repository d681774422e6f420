"""What makes training faster or smaller and leaves its result alone: whether the recipe's model can have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nlp_finetune.data.lengths import tokens_used
from nlp_finetune.errors import InputError
from nlp_finetune.learning.optimizers import DECOUPLED_DECAY, ELEMENTWISE
from nlp_finetune.models import compact
from nlp_finetune.recipe import Recipe
from nlp_finetune.runtime import Runtime, say
from nlp_finetune.strategy import SHARDED
from nlp_finetune.tasks import base

if TYPE_CHECKING:
    from datasets import Dataset

_WORTH_COMPACTING = 0.9
"""Share of a table's rows that training uses, up to which `auto` trains them alone."""


def compact_vocabulary(
    recipe: Recipe, task: base.BaseTask, model: Any, processor: Any, train: Dataset, runtime: Runtime
) -> compact.CompactEmbedding | None:
    """Train only the rows of the embedding table that training uses, where that is asked for or exact.

    The model is changed in place. Raises `InputError` where it is asked for and would not be exact.
    """
    asked = recipe.train.compact_vocabulary
    if asked == "off" or task.images:
        return None
    reason = _inexact(recipe, task, processor, runtime) or compact.obstacle(model)
    if reason is not None:
        if asked == "on":
            raise InputError(f"train.compact_vocabulary on: {reason}. Leave it at auto.")
        say(f"compact vocabulary off: {reason}")
        return None
    table = model.get_input_embeddings()
    padding = [token for token in (table.padding_idx, processor.pad_token_id) if token is not None]
    used, size = tokens_used(train, besides=padding), table.num_embeddings
    if asked == "auto" and len(used) > _WORTH_COMPACTING * size:
        say(
            f"compact vocabulary off: training uses {len(used):,} of {size:,} rows of the table, too many to gain by it"
        )
        return None
    say(f"compact vocabulary: training uses {len(used):,} of {size:,} rows of the embedding table and trains those")
    return compact.compact(model, used)


def _inexact(recipe: Recipe, task: base.BaseTask, processor: Any, runtime: Runtime) -> str | None:
    """Why training some rows alone would not be the same as training all; None if it would."""
    optim = recipe.optim
    if optim.name not in (*ELEMENTWISE, "lion"):
        return f"optim.name {optim.name} looks at the table as a whole"
    if optim.weight_decay and optim.name not in DECOUPLED_DECAY:
        return f"optim.weight_decay of {optim.name} moves rows that are never read; it is exact at 0"
    if optim.weight_decay and recipe.train.precision == "fp16":
        return "optim.weight_decay moves rows that are never read, but not in steps that fp16 skips; it is exact at 0"
    if optim.weight_decay and recipe.average.name is not None:
        return "optim.weight_decay moves rows that are never read, and an average takes them in; it is exact at 0"
    if recipe.freeze.gradual is not None:
        return "freeze.gradual thaws the table as a whole"
    if runtime.strategy in SHARDED:
        return "FSDP and DeepSpeed share out the table as a whole"
    if recipe.augment.text or task.transform(processor) is not None:
        return "rows are changed at random in training, and may come to hold any token"
    return None
