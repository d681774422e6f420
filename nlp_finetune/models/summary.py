"""What a model consists of, and needs: layers found by structure, parameters, an estimate of memory."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import nn

_BACKWARD = 1.5
"""Peak of a step over what the forward pass keeps."""
_HALF_SHARE = 0.6
"""Activations in half precision over fp32: norms and softmax stay in fp32."""

_ORIGINAL = "original_module."
"""Part of the names of what peft keeps beside its copy of a module that is trained whole."""

Kind = Literal["embeddings", "block", "norm", "pooler", "head"]


@dataclass(frozen=True)
class LayerGroup:
    """Modules that belong together, in the order of the model.

    `shapes` lists the matrices (`4 x 384x384, 1536x384`); `parameters` counts what no earlier group
    holds already, so that groups add up to the model; `trainable` is the share of them in [0, 1] that
    training changes; `repeated` is how often a forward pass runs the group (ALBERT shares one block).
    """

    name: str
    kind: Kind
    shapes: str
    parameters: int
    trainable: float
    repeated: int = 1


@dataclass(frozen=True)
class Part:
    """A module of a model with its place in it: the same as a `LayerGroup`, before anything is counted."""

    name: str
    kind: Kind
    module: nn.Module
    repeated: int = 1


def layer_groups(model: nn.Module) -> list[LayerGroup]:
    """The parts of a model with their shapes and sizes; a shared parameter counts where it stands first."""
    seen: set[int] = set()
    groups = [_group(part.name, part.kind, part.module, seen, part.repeated) for part in parts(model)]
    return [group for group in groups if group.parameters]


def parts(model: nn.Module) -> Iterator[Part]:
    """Parts of a model in its order: embeddings, each block, what follows them, the head.

    Blocks are the elements of the outermost module lists of the base model whose elements are alike
    and have parts of their own (BERT's layers, both stacks of BART, the stages of a ResNet). What
    holds an embedding table or comes before the first block is `embeddings`, a norm behind the
    blocks is `norm`, the rest of the base is `pooler`, and what the base does not hold is `head`.
    """
    base = _base(model)
    prefix = next((f"{name}." for name, module in model.named_modules() if module is base and name), "")
    lists = dict(block_lists(base))
    blocks = {f"{name}.{i}": block for name, stack in lists.items() for i, block in enumerate(stack)}
    before_blocks = True
    for name, module in _parts(base, blocks, ""):
        if name in blocks:
            kind: Kind = "block"
            before_blocks = False
        elif before_blocks or _holds_table(module):
            kind = "embeddings"
        else:
            kind = "norm" if _is_norm(module) else "pooler"
        yield Part(prefix + name, kind, module, _repeats(model, lists) if name in blocks else 1)
    if base is not model:
        yield from (Part(name, "head", module) for name, module in _direct_parts(model) if module is not base)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """All parameters of a model and those that training changes; shared ones count once.

    Of a module that is trained whole beside an adapter, the untouched original does not count: nothing runs it.
    """
    # DeepSpeed's ZeRO-3 leaves nothing of a weight where it was, but its size.
    counted = [p for name, p in model.named_parameters() if _ORIGINAL not in name]
    sizes = [(int(getattr(p, "ds_numel", p.numel())), p.requires_grad) for p in counted]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def estimate_memory(
    model: nn.Module,
    *,
    rows: int,
    tokens: int,
    optimizer_states: int,
    precision: str,
    inputs: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, int]:
    """Bytes that training takes at its peak, by what they are for; their sum is the whole.

    `rows` x `tokens` is the micro batch, `optimizer_states` the numbers kept per trained parameter
    (2 for AdamW), `precision` one of fp32, bf16, fp16. A model that does not read token ids is given
    `inputs` of a few rows instead, `[rows, ...]` each.

    One row runs forward through the base model, and what it keeps for the backward pass is counted
    and multiplied (of a model on the meta device, a copy with made-up weights); the backward pass's
    own temporaries are taken as half of that, plus the largest gradient. Compared with how much the
    process grew in a step on a CPU (torch 2.13): MiniLM with 32 x 128 needed 1.45 to 1.51 GB, and
    1.78 GB are estimated, a fifth too much; over BERT, DistilBERT, ALBERT, DeBERTa, ModernBERT and
    GPT-2 with 8 x 128 it was from 10 % too low (ModernBERT) to 48 % too high (DeBERTa). Half
    precision is a rough share of fp32, not measured.
    """
    total, trained = count_parameters(model)
    half = precision in ("bf16", "fp16")
    kept = rows * (_kept_by_one_row(model, tokens, inputs) + tokens * logits_bytes(model))
    largest = max((p.numel() * 4 for p in model.parameters() if p.requires_grad), default=0)
    return {
        # Autocast keeps a second copy of the matrices in half precision.
        "weights": total * (6 if half else 4),
        "gradients": trained * 4,
        "optimizer": trained * 4 * optimizer_states,
        "activations": int(_BACKWARD * kept * (_HALF_SHARE if half else 1)) + largest,
    }


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Put a model's buffers back after a trial run, which moves BatchNorm's statistics."""
    import torch

    before = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])


def _kept_by_one_row(model: nn.Module, tokens: int, given: Mapping[str, torch.Tensor] | None = None) -> int:
    """Bytes that the base model keeps for the backward pass of one row."""
    import torch

    if next(model.parameters()).device.type == "meta":
        model = _materialised(model)
    base, kept = _base(model), dict[int, torch.UntypedStorage]()
    parameters = {p.untyped_storage()._cdata for p in model.parameters()}
    device = next(model.parameters()).device

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage  # held, or another tensor's storage could take its place
        return tensor

    table: Any = getattr(base, "get_input_embeddings", lambda: None)() if given is None else None
    token = int(table.used[0]) if hasattr(table, "used") else 1  # a compact one knows its own tokens alone
    inputs = {"input_ids": torch.full((1, tokens), token, dtype=torch.long, device=device)}
    if given is not None:
        base, inputs = model, {name: tensor.to(device) for name, tensor in given.items()}
    else:
        inputs["attention_mask"] = inputs["input_ids"].clone()
        # With a row that is all there, attention would skip the mask and keep less.
        inputs["attention_mask"][0, -1] = 0
    if given is None and getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = inputs["input_ids"]
    modes = [(module, module.training) for module in base.modules()]
    devices = [device] if device.type == "cuda" else []
    # Dropout draws numbers; the run that follows must not notice.
    with (
        kept_buffers(model),
        torch.random.fork_rng(devices=devices),
        torch.autograd.graph.saved_tensors_hooks(count, lambda t: t),
    ):
        try:
            base.train()(**inputs)
        except (RuntimeError, TypeError, ValueError, LookupError):
            # Few models can't: XLNet on the meta device, whatever reads more than token ids. Inputs and
            # outputs of all matrices are of the same order.
            matrices = [p for _, stack in block_lists(base) for p in stack.parameters() if p.dim() >= 2]
            return sum(4 * tokens * sum(p.shape) for p in matrices)
        finally:
            for module, mode in modes:  # frozen parts may be in evaluation mode while others are not
                module.training = mode
    rows = len(next(iter(inputs.values())))
    return sum(storage.nbytes() for storage in kept.values()) // rows


def _materialised(model: nn.Module) -> nn.Module:
    """A copy of a model without memory that can run: parameters as the memory is, buffers zero.

    Attention looks into its mask, which a model on the meta device can't; sizes are all that counts
    here, and pages that are only read take no memory.
    """
    import torch

    runnable = copy.deepcopy(model).to_empty(device="cpu")
    with torch.no_grad():
        for buffer in runnable.buffers():  # positions among them, which are looked up in a table
            buffer.zero_()
    return runnable


def logits_bytes(model: nn.Module) -> int:
    """Bytes of one token's logits over a vocabulary, their softmax and its gradient; 0 without such a head."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    rows = getattr(getattr(head, "weight", None), "shape", (0,))[0]
    return 3 * 4 * int(rows)


def _base(model: nn.Module) -> nn.Module:
    base = getattr(model, "base_model", model)
    return base if any(True for _ in base.parameters()) else model


def block_lists(base: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    """Outermost lists of alike modules that have parts of their own."""
    from torch import nn

    found: list[str] = []
    for name, module in base.named_modules():
        if any(name.startswith(f"{outer}.") for outer in found) or not isinstance(module, nn.ModuleList):
            continue
        alike = len({type(element) for element in module}) == 1
        if alike and any(True for _ in module[0].children()):
            found.append(name)
            yield name, module


def _parts(module: nn.Module, blocks: dict[str, nn.Module], prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Blocks, and the largest modules that hold none, in the order in which they were made."""
    for child, part in module.named_children():
        name = f"{prefix}{child}"
        if name in blocks or not any(block.startswith(f"{name}.") for block in blocks):
            yield name, part
        else:
            yield from _parts(part, blocks, f"{name}.")
    yield from _loose(module, prefix)


def _direct_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    yield from model.named_children()
    yield from _loose(model, "")


def _loose(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Parameters that a module holds itself, each wrapped so that it can be counted like a module."""
    from torch import nn

    for name, parameter in module.named_parameters(recurse=False):
        yield f"{prefix}{name}", nn.ParameterList([parameter])


def _holds_table(module: nn.Module) -> bool:
    from torch import nn

    return any(isinstance(part, nn.Embedding) for part in module.modules())


def _is_norm(module: nn.Module) -> bool:
    """Whether a module scales and shifts only: no part of it is a matrix."""
    return all(parameter.dim() < 2 for parameter in module.parameters())


def _repeats(model: nn.Module, lists: dict[str, nn.ModuleList]) -> int:
    """Runs of each block in a forward pass, where one list of blocks is shared by more layers."""
    layers = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    blocks = sum(len(stack) for stack in lists.values())
    return layers // blocks if isinstance(layers, int) and len(lists) == 1 and layers > blocks else 1


def _group(name: str, kind: Kind, module: nn.Module, seen: set[int], repeated: int = 1) -> LayerGroup:
    own: list[torch.nn.Parameter] = [
        p for name, p in module.named_parameters() if id(p) not in seen and _ORIGINAL not in name
    ]
    seen.update(id(p) for p in own)
    total = sum(p.numel() for p in own)
    shapes = Counter("x".join(map(str, p.shape)) for p in own if p.dim() >= 2)
    trained = sum(p.numel() for p in own if p.requires_grad)
    listed = [f"{count} x {shape}" if count > 1 else shape for shape, count in shapes.items()]
    return LayerGroup(
        name,
        kind,
        ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else ""),
        total,
        trained / total if total else 0.0,
        repeated,
    )
