"""Channels last: the same results to rounding, weights saved as always."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import ResNetConfig, ResNetForImageClassification

from nlp_finetune.models import layout

LABELS = torch.tensor([0, 1, 2, 1])
PEFT = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
"""peft asks transformers for it."""


def model(*, channels_last: bool | None = None, kind: str = "basic") -> ResNetForImageClassification:
    torch.manual_seed(0)
    config = ResNetConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], embedding_size=8, layer_type=kind, num_labels=3
    )
    made = ResNetForImageClassification(config)
    if channels_last is not None:
        layout.arrange(made, channels_last=channels_last)
    return made


def adapted(*, channels_last: bool, dora: bool, kind: str = "basic") -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model

    made = get_peft_model(model(kind=kind), LoraConfig(r=2, target_modules=["convolution"], use_dora=dora))
    with torch.no_grad():
        for number, (name, p) in enumerate(made.named_parameters()):
            if "lora_B" in name or "lora_A" in name:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(number)) / 10)
    layout.arrange(made, channels_last=channels_last)
    return made


def pictures() -> torch.Tensor:
    """As the collator gives them: the channels of a pixel side by side."""
    torch.manual_seed(1)
    return torch.randn(4, 40, 40, 3).permute(0, 3, 1, 2)


def step(network: torch.nn.Module, *, half: bool = False) -> dict[str, torch.Tensor]:
    """Logits, loss and all gradients of a training step."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        outputs = network(pixel_values=pictures(), labels=LABELS)
    outputs.loss.backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"logits": outputs.logits.detach().float(), "loss": outputs.loss.detach(), **gradients}


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float) -> bool:
    return one.keys() == other.keys() and all(
        (one[name] - other[name]).abs().max() <= tolerance * max(1.0, other[name].abs().max()) for name in one
    )


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_logits_loss_and_gradients_are_those_of_the_usual_layout(kind: str) -> None:
    assert close(step(model(channels_last=True, kind=kind)), step(model(channels_last=False, kind=kind)), 2e-5)


def test_in_bf16_they_differ_by_no_more_than_its_rounding() -> None:
    exact = step(model(channels_last=False))
    for chosen in (True, False):
        found = step(model(channels_last=chosen), half=True)
        assert close({"loss": found["loss"]}, {"loss": exact["loss"]}, 0.03)
        assert close({"logits": found["logits"]}, {"logits": exact["logits"]}, 0.1)


@PEFT
@pytest.mark.parametrize("dora", [False, True])
def test_adapters_on_convolutions_give_the_same_too(dora: bool) -> None:
    found = [step(adapted(channels_last=chosen, dora=dora)) for chosen in (True, False)]
    assert any("lora_B" in name for name in found[0])
    assert close(*found, 2e-5)


@PEFT
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("adapters", ["none", "lora"])
def test_gradients_lie_as_their_weights_so_that_ddp_need_not_copy(adapters: str, kind: str) -> None:
    if adapters == "none":
        network: torch.nn.Module = model(channels_last=True, kind=kind)
    else:
        network = adapted(channels_last=True, dora=False, kind=kind)
    step(network)
    assert all(p.grad.stride() == p.stride() for p in network.parameters() if p.grad is not None)


def test_weights_of_convolutions_lie_channels_last() -> None:
    weight = model(channels_last=True).resnet.embedder.embedder.convolution.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_saved_weights_are_contiguous_and_the_same(tmp_path: Path) -> None:
    network = model(channels_last=True)
    network.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert all(tensor.is_contiguous() and torch.equal(tensor, network.state_dict()[n]) for n, tensor in saved.items())


def test_a_loaded_checkpoint_leaves_the_layout_as_it_is(tmp_path: Path) -> None:
    network = model(channels_last=True)
    before = {name: p.stride() for name, p in network.named_parameters()}
    network.load_state_dict(model(channels_last=False).state_dict())
    assert {name: p.stride() for name, p in network.named_parameters()} == before


@pytest.mark.parametrize("chosen", [True, False])
def test_convolutions_see_images_in_the_chosen_layout(chosen: bool) -> None:
    network = model(channels_last=chosen)
    seen = []
    network.resnet.embedder.embedder.convolution.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(pixel_values=pictures())
    assert seen[0].is_contiguous(memory_format=torch.channels_last) is chosen
    assert seen[0].is_contiguous() is not chosen


def test_it_pays_on_cpus_and_in_half_precision() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert all(layout.pays(device, how) for device, how in ((cpu, "fp32"), (cpu, "bf16"), (gpu, "bf16"), (gpu, "fp16")))
    assert not layout.pays(gpu, "fp32")


def test_only_models_of_images_have_convolutions() -> None:
    assert layout.has_convolutions(model(channels_last=True))
    assert not layout.has_convolutions(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Conv1d(2, 2, 1)))
