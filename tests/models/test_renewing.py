"""The top of a pretrained model drawn anew: by the model's own initialisation, and nothing else of it."""

from collections.abc import Callable

import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from nlp_finetune.errors import InputError
from nlp_finetune.models.freezing import freeze
from nlp_finetune.models.renewing import check_trained, draw_top_layers
from tests.models.conftest import SIZES, Lines, ignore, load


def trained(saved: Callable[..., str], family: str = "bert") -> torch.nn.Module:
    """A model from a checkpoint, each of whose numbers is far from any initialisation."""
    model = load(saved(family))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    return model


def untouched(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if bool((parameter == 7.0).all())}


@pytest.mark.parametrize("family", ["bert", "gpt2", "distilbert"])
def test_blocks_from_the_top_are_as_the_model_draws_them(family: str, saved: Callable[..., str], said: Lines) -> None:
    model = trained(saved, family)
    draw_top_layers(model, 1, seed=3, say=said)
    still = untouched(model)
    changed = {name for name, _ in model.named_parameters()} - still
    assert changed
    assert all(".1." in name or "pooler" in name for name in changed)
    for name in changed:
        parameter = model.get_parameter(name)
        if parameter.ndim == 2:
            assert 0.005 < float(parameter.detach().std()) < 0.03  # GPT-2 draws what ends a block smaller
        else:
            assert set(parameter.tolist()) <= {0.0, 1.0}
    assert said[0].startswith("drawn anew: ")


def test_the_same_seed_draws_the_same_and_leaves_the_global_generator(saved: Callable[..., str]) -> None:
    one, other = trained(saved), trained(saved)
    torch.manual_seed(1)
    expected = torch.rand(1)
    for model in (one, other):
        torch.manual_seed(1)
        draw_top_layers(model, 2, seed=5, say=ignore)
        assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_statistics_of_batch_normalisation_start_over() -> None:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    model = ResNetForImageClassification(config)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.fill_(7.0)
    draw_top_layers(model, 1, seed=1, say=ignore)
    means = {name: buffer for name, buffer in model.named_buffers() if name.endswith("running_mean")}
    assert {float(mean.max()) for name, mean in means.items() if "stages.1." in name} == {0.0}
    assert {float(mean.max()) for name, mean in means.items() if "stages.1." not in name} == {7.0}


def test_what_was_drawn_anew_trains_beside_the_head(saved: Callable[..., str]) -> None:
    model = trained(saved)
    draw_top_layers(model, 1, seed=1, say=ignore)
    freeze(model, None, [], True, say=ignore)
    check_trained(model, 1)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(".layer.1." in name or "pooler" in name or name.startswith("classifier") for name in names)
    assert any(".layer.1." in name for name in names)


def test_what_would_be_random_and_frozen_is_refused(saved: Callable[..., str]) -> None:
    model = trained(saved)
    draw_top_layers(model, 1, seed=1, say=ignore)
    freeze(model, 2, [], False, say=ignore)
    with pytest.raises(InputError, match=r"bert.encoder.layer.1 would be drawn anew and then stay frozen"):
        check_trained(model, 1)


@pytest.mark.parametrize(("family", "count", "message"), [("bert", 3, r"\(bert\) has 2"), ("albert", 1, "share one")])
def test_layers_that_are_not_there_are_refused(family: str, count: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_top_layers(load(f"scratch:{family}", edits=SIZES[family]), count, seed=1, say=ignore)
