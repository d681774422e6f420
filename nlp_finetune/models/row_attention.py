"""Attention within rows: what models call, through transformers' interface, where batches have no padding.

Short rows are attended by plain matrix products, which on a CPU beat torch's own kernel in half precision and
wherever there is dropout; long ones by torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from nlp_finetune.models.dropout import fast_dropout as fast_dropout_function
from nlp_finetune.models.rows import Rows

NAMES = NAME, WITH_FAST_DROPOUT = "nlp_finetune_rows", "nlp_finetune_rows_fast_dropout"
"""Values of a configuration's `_attn_implementation` that mean this module."""
_PLAIN = 512
"""Rows up to this length are attended by plain matrix products on a CPU."""
_UNDERSTOOD = {"position_ids", "use_cache", "deterministic", "output_attentions", "output_hidden_states"}
"""Arguments of families that change nothing here."""

Dropout = Callable[[Tensor, float], Tensor]


class First(Protocol):
    """What a module has as `first_token_only` whose attention is wanted for the first token of each row alone."""

    is_on: bool
    attended: int
    """How often attention was called."""


class Current:
    """How the batch is laid out that runs through a model: transformers' registries know functions, not models."""

    rows: Rows | None = None
    """None: padded, as usual."""
    unpacked: Rows | None = None
    """Rows that were laid end to end in the blocks before, and have padding again."""


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    *,
    drop: Dropout,
    **others: Any,
) -> tuple[Tensor, None]:
    """`softmax(query key' x scaling) value`, each token among those of its row; called in every layer.

    `query` is `[rows, heads, longest, width]`, or `[1, heads, tokens, width]` where rows are laid end to end;
    the answer has `heads` behind tokens.
    """
    strange = [name for name, given in others.items() if given is not None and name not in _UNDERSTOOD]
    if strange:
        raise NotImplementedError(f"{type(module).__name__} asks attention for {', '.join(strange)}")
    rows = Current.rows
    if Current.unpacked is not None:
        if sliding_window is not None:
            raise NotImplementedError("the last block looks at a window of tokens")
        attention_mask = Current.unpacked.mask(query.dtype)
    first: First | None = getattr(module, "first_token_only", None)
    if first is not None:
        first.attended += 1
        if first.is_on:
            return _of_first(query, key, value, attention_mask, dropout, scaling, drop), None
    if rows is None and query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, is_causal)  # type: ignore[no-any-return]
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if rows is None:
        return _attend(query, key, value, attention_mask, dropout, scaling, drop).transpose(1, 2), None
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    in_half = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16)
    if in_half and dropout and sliding_window is None:
        return _flash_with_dropout(query, key, value, rows, scaling, causal, dropout), None
    if in_half and not dropout:
        return _flash(query, key, value, rows, scaling, causal, sliding_window), None
    flat = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]  # [tokens, heads, width]
    found = []
    for group in rows.groups:
        mask = group.mask(query.dtype, causal=causal, window=sliding_window)
        q, k, v = (group.pad(tensor).transpose(1, 2) for tensor in flat)
        found.append(group.unpad(_attend(q, k, v, mask, dropout, scaling, drop).transpose(1, 2)))
    return (found[0] if len(found) == 1 else torch.cat(found))[None], None


def _of_first(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scaling: float | None, drop: Dropout
) -> Tensor:
    """What the first token of each padded row sees, in the shape of all tokens (all of a row have their first's)."""
    groups, longest = query.shape[1] // key.shape[1], query.shape[2]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    seen = None if mask is None else mask[:, :, :1]
    found = _attend(query[:, :, :1], key, value, seen, dropout, scaling, drop).transpose(1, 2)
    return found.expand(-1, longest, -1, -1)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scaling: float | None, drop: Dropout
) -> Tensor:
    """All of `[count, heads, longest, width]`; `mask` is added to the scores."""
    if query.shape[2] > _PLAIN or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scale, key.transpose(-1, -2))
    shares = torch.softmax(scores if mask is None else scores + mask.to(scores.dtype), -1)
    return torch.matmul(drop(shares, dropout) if dropout else shares, value)


def _flash(
    query: Tensor, key: Tensor, value: Tensor, rows: Rows, scaling: float | None, causal: bool, window: int | None
) -> Tensor:
    """torch's flash attention over rows of any length; it has no dropout."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    reach = -1 if window is None else window - 1
    window_size = (reach, 0 if causal else reach)
    ends, longest = rows.ends, rows.lengths[0]
    found: Any = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scaling, window_size=window_size)
    attended: Tensor = found[None]
    return attended


def _flash_with_dropout(
    query: Tensor, key: Tensor, value: Tensor, rows: Rows, scaling: float | None, causal: bool, dropout: float
) -> Tensor:
    """The same with dropout, which torch has for nested tensors; it has no window of tokens."""

    def by_row(tensor: Tensor) -> Tensor:
        shortest, longest = rows.lengths[-1], rows.lengths[0]
        values = tensor[0].transpose(0, 1)
        offsets = rows.ends.long()
        nested: Tensor = torch.nested.nested_tensor_from_jagged(
            values, offsets, min_seqlen=shortest, max_seqlen=longest
        )
        return nested.transpose(1, 2)

    found: Any = F.scaled_dot_product_attention(
        by_row(query), by_row(key), by_row(value), dropout_p=dropout, is_causal=causal, scale=scaling
    )
    attended: Tensor = found.transpose(1, 2).values()[None]
    return attended


def _mask(**given: Any) -> Tensor | None:
    """The mask of a padded batch as `attention` takes it; rows laid end to end have theirs there."""
    if Current.rows is not None:
        return None
    on_cpu = torch.device(given.get("device", "cpu")).type == "cpu"
    mask: Tensor | None = eager_mask(**given) if on_cpu else sdpa_mask(**given)
    return mask


def use(model: Any, *, fast_dropout: bool = False) -> None:
    """Let the layers of a model that supports transformers' interface call `attention`."""
    for name, drop in ((NAME, F.dropout), (WITH_FAST_DROPOUT, fast_dropout_function)):
        AttentionInterface.register(name, partial(attention, drop=drop))
        AttentionMaskInterface.register(name, _mask)
    model.set_attn_implementation(WITH_FAST_DROPOUT if fast_dropout else NAME)
    # Whatever another model in this process did before: batches are padded until a hook that follows says otherwise.
    model.base_model.register_forward_pre_hook(_padded, prepend=True)


def _padded(*_: Any) -> None:
    Current.rows = Current.unpacked = None
