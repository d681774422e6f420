"""Learning rates by height and by name, for every family, and groups of an optimizer that keep them."""

import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from nlp_finetune.errors import InputError
from nlp_finetune.learning.optimizers import make_optimizer
from nlp_finetune.models.freezing import freeze
from nlp_finetune.models.rates import factors
from nlp_finetune.models.summary import layer_groups, parts
from tests.models.conftest import SIZES, ignore, load


def small(family: str, **options) -> torch.nn.Module:
    return load(f"scratch:{family}", edits=SIZES[family], **options)


def resnet() -> torch.nn.Module:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    return ResNetForImageClassification(config)


def by_name(model: torch.nn.Module, **options) -> dict[str, float]:
    found = factors(model, **options)
    return {name: found[id(p)] for name, p in model.named_parameters() if id(p) in found}


def of_kind(model: torch.nn.Module, found: dict[int, float], kind: str) -> list[float]:
    """Factors of the parts of a kind, from below; each part has one."""
    chosen = [part.module for part in parts(model) if part.kind == kind and any(True for _ in part.module.parameters())]
    each = [{found[id(p)] for p in module.parameters()} for module in chosen]
    assert all(len(factors) == 1 for factors in each)
    return [factors.pop() for factors in each]


@pytest.mark.parametrize("family", [*SIZES, "resnet"])
def test_each_layer_learns_slower_than_the_one_above(family: str) -> None:
    model = resnet() if family == "resnet" else small(family)
    found = factors(model, layer_decay=0.5)
    assert found.keys() == {id(p) for p in model.parameters()}
    blocks, lowest = of_kind(model, found, "block"), set(of_kind(model, found, "embeddings"))
    has_head = any(group.kind == "head" for group in layer_groups(model))
    first = 1 if has_head else 0
    assert blocks[::-1] == [0.5 ** (first + depth) for depth in range(len(blocks))]
    assert lowest == {0.5 ** (first + len(blocks))}
    assert set(of_kind(model, found, "head")) <= {1.0}
    assert set(of_kind(model, found, "pooler")) <= {1.0}


def test_the_multiplier_is_the_heads_alone() -> None:
    found = by_name(small("bert"), head_multiplier=10.0)
    assert {name for name, factor in found.items() if factor == 10.0} == {"classifier.weight", "classifier.bias"}
    assert set(found.values()) == {1.0, 10.0}


def test_patterns_come_on_top_of_the_height() -> None:
    model = small("bert")
    plain = by_name(model, layer_decay=0.9)
    found = by_name(model, layer_decay=0.9, patterns={"*.bias": 0.5, "*.layer.1.*": 2.0})
    for name, factor in found.items():
        more = (0.5 if name.endswith(".bias") else 1.0) * (2.0 if ".layer.1." in name else 1.0)
        assert factor == plain[name] * more


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patterns": {"*.bais": 0.5}}, r"optim.rates \*.bais: no parameter of this model is called so"),
        ({"patterns": {"*.embeddings.*": 0.5}}, "all parameters that are called so are frozen"),
    ],
)
def test_a_pattern_that_changes_nothing_is_refused(options: dict, message: str) -> None:
    model = small("bert")
    freeze(model, 1, [], False, say=ignore)
    with pytest.raises(InputError, match=message):
        factors(model, **options)


def test_a_multiplier_without_a_head_is_refused() -> None:
    model = load("scratch:gpt2", names=(), auto_class="AutoModelForCausalLM", edits=SIZES["gpt2"])
    with pytest.raises(InputError, match="GPT2LMHeadModel has no head of its own"):
        factors(model, head_multiplier=10.0)


def test_frozen_layers_do_not_change_the_rates_of_others() -> None:
    model, other = small("bert"), small("bert")
    freeze(other, 1, [], False, say=ignore)
    found = by_name(other, layer_decay=0.5)
    assert found == {name: factor for name, factor in by_name(model, layer_decay=0.5).items() if name in found}


def test_groups_hold_every_parameter_once_with_its_rate_and_its_decay() -> None:
    model = small("gpt2")
    found = factors(model, layer_decay=0.5, head_multiplier=10.0, patterns={"*.bias": 0.5})
    optimizer = make_optimizer(model, name="adamw", learning_rate=0.1, weight_decay=0.3, factors=found)
    held = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(id(p) for p, _ in held) == sorted(id(p) for p in model.parameters())
    for parameter, group in held:
        assert group["lr"] == pytest.approx(0.1 * found[id(parameter)])
        assert group["weight_decay"] == (0.3 if parameter.ndim >= 2 else 0.0)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == sorted(rates, reverse=True)


def test_a_parameter_moves_as_far_as_its_rate_says() -> None:
    def moved(**options) -> dict[str, torch.Tensor]:
        model = small("bert")
        optimizer = make_optimizer(
            model, name="sgd", learning_rate=0.1, weight_decay=0.0, factors=factors(model, **options)
        )
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        torch.manual_seed(0)
        model.eval()(input_ids=torch.tensor([[5, 6, 7]])).logits.square().sum().backward()
        optimizer.step()
        return {name: p.detach() - before[name] for name, p in model.named_parameters()}

    found = by_name(small("bert"), layer_decay=0.5, head_multiplier=4.0)
    plain, scaled = moved(), moved(layer_decay=0.5, head_multiplier=4.0)
    for name, step in scaled.items():
        torch.testing.assert_close(step, plain[name] * found[name], rtol=1e-4, atol=1e-7)
