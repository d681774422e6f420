"""How new weights are drawn, and what becomes of a head that has labels already."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nlp_finetune.errors import InputError
from nlp_finetune.models.heads import draw, head_names, output_layer, start_at
from nlp_finetune.models.labels import match_labels
from nlp_finetune.models.loading import new_parameters

from .conftest import MINILM, Lines, load

INITS = ["default", "xavier", "he", "normal", "orthogonal", "zero"]


@pytest.fixture
def classifier(saved: Callable[..., str]) -> Callable[..., str]:
    """Save a small classifier of these labels, its rows recognisable by their values."""

    def save(*names: str, family: str = "bert", bias: bool = True) -> str:
        folder = saved(family, auto_class="AutoModelForSequenceClassification", names=names)
        model = load(folder, names=names)
        last = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == len(names)][-1]
        with torch.no_grad():
            for row in range(len(names)):
                last.weight[row] = row + 1
                if last.bias is not None:
                    last.bias[row] = 10 * (row + 1)
        model.save_pretrained(folder)
        return folder

    return save


@pytest.mark.parametrize("head_init", INITS)
def test_the_same_seed_draws_the_same_head_whatever_came_before(saved: Callable[..., str], head_init: str) -> None:
    folder = saved("bert")
    first = load(folder, head_init=head_init, seed=3).classifier
    torch.rand(17)
    second = load(folder, head_init=head_init, seed=3).classifier
    other = load(folder, head_init=head_init, seed=4).classifier
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.weight, other.weight) == (head_init == "zero")


def test_drawing_a_head_leaves_the_global_generator_alone(saved: Callable[..., str]) -> None:
    folder = saved("bert")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load(folder, head_init="xavier")
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("head_init", "spread"),
    [
        ("default", 0.02),
        ("normal", 0.02),
        ("xavier", (2 / (384 + 3)) ** 0.5),
        ("he", (2 / 384) ** 0.5),
        ("orthogonal", 384**-0.5),
        ("zero", 0.0),
    ],
)
def test_each_way_to_draw_has_its_spread_and_zero_biases(head_init: str, spread: float) -> None:
    head = load(MINILM, head_init=head_init).classifier
    assert head.weight.std().item() == pytest.approx(spread, rel=0.1)
    assert not head.bias.any()


def test_orthogonal_rows_are_orthonormal() -> None:
    weight = load(MINILM, head_init="orthogonal").classifier.weight
    assert torch.allclose(weight @ weight.T, torch.eye(3), atol=1e-5)


def test_an_unknown_way_to_draw_names_those_there_are(saved: Callable[..., str]) -> None:
    with pytest.raises(InputError, match="use one of default, xavier, he, normal, orthogonal, zero"):
        load(saved("bert"), head_init="xavir")


def test_zero_leaves_the_layer_before_the_last_able_to_learn(saved: Callable[..., str]) -> None:
    model = load(saved("roberta"), head_init="zero")
    assert model.classifier.dense.weight.any()
    assert not model.classifier.out_proj.weight.any()
    ids = torch.full((2, 5), 4)
    model(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()
    assert model.classifier.out_proj.weight.grad.any()


@pytest.mark.parametrize("head_init", ["default", "orthogonal", "zero"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "modernbert", "t5", "albert"])
def test_drawing_changes_the_head_and_nothing_else(family: str, head_init: str, saved: Callable[..., str]) -> None:
    model = load(saved(family))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    draw(model, head_names(model), head_init=head_init, seed=99)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert changed <= head_names(model)


def test_the_scale_of_a_norm_in_a_new_head_stays_one(saved: Callable[..., str]) -> None:
    assert torch.equal(load(saved("modernbert"), head_init="xavier").head.norm.weight, torch.ones(16))


def test_the_same_labels_in_the_same_order_are_kept(classifier: Callable[..., str], said: Lines) -> None:
    model = load(classifier("neg", "mid", "pos"), said, names=("neg", "mid", "pos"))
    assert model.classifier.bias.tolist() == [10, 20, 30]
    assert said == ["head: the checkpoint has these 3 labels, kept as they are", "head and backbone 100 % loaded"]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "distilbert"])
def test_rows_follow_their_labels_into_another_order(classifier: Callable[..., str], said: Lines, family: str) -> None:
    model = load(classifier("neg", "mid", "pos", family=family), said, names=("pos", "neg", "mid"))
    last = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 3][-1]
    assert last.weight[:, 0].tolist() == [3, 1, 2]
    assert last.bias is None or last.bias.tolist() == [30, 10, 20]
    assert "its rows put into the order pos, neg, mid" in said[0]


def test_labels_that_both_have_are_taken_over_and_the_others_start_anew(
    classifier: Callable[..., str], said: Lines
) -> None:
    model = load(classifier("neg", "mid", "pos"), said, names=("pos", "neg", "mixed", "off-topic"))
    assert model.classifier.bias.tolist() == [30, 10, 0, 0]
    assert model.classifier.weight[0].tolist() == [3] * 16
    assert model.classifier.weight[2].abs().max() < 0.2
    assert said[0] == "head: taken over by name: pos, neg; new: mixed, off-topic; left out: mid"
    assert "34 parameters" in said[1]


def test_other_labels_start_anew_even_if_there_are_as_many(classifier: Callable[..., str], said: Lines) -> None:
    model = load(classifier("neg", "pos"), said, names=("spam", "ham"), head_init="xavier")
    assert model.classifier.weight.abs().max() < 0.99
    assert not model.classifier.bias.any()
    assert said[0] == "head: starts anew, the checkpoint's labels (neg, pos) are not spam, ham"
    assert said[1].startswith("new head 16->2 (classifier), xavier_uniform, 34 parameters")


def test_labels_without_names_are_kept_only_for_labels_without_names(
    classifier: Callable[..., str], said: Lines
) -> None:
    folder = classifier("LABEL_0", "LABEL_1")
    assert load(folder, names=("LABEL_0", "LABEL_1")).classifier.bias.tolist() == [10, 20]
    assert load(folder, said, names=("neg", "pos")).classifier.bias.tolist() == [0, 0]
    assert "starts anew, the checkpoint's labels (LABEL_0, LABEL_1)" in said[0]


def test_the_layer_before_the_labels_is_kept_when_labels_change(classifier: Callable[..., str]) -> None:
    folder = classifier("neg", "pos", family="roberta")
    before = load(folder, names=("neg", "pos")).classifier.dense.weight
    assert torch.equal(load(folder, names=("a", "b", "c")).classifier.dense.weight, before)


def test_old_rows_are_found_in_pickled_weights_too(classifier: Callable[..., str]) -> None:
    folder = Path(classifier("neg", "mid", "pos"))
    model = load(str(folder), names=("neg", "mid", "pos"))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert load(str(folder), names=("pos", "new")).classifier.bias.tolist() == [30, 0]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (["NEGATIVE", "POSITIVE"], ["negative", "positive"], {0: 0, 1: 1}),
        (["Good", "good"], ["good", "Good"], {0: 1, 1: 0}),
        (["LABEL_0", "LABEL_1"], ["LABEL_0"], {}),
        (["LABEL_0", "LABEL_1"], ["LABEL_0", "LABEL_1"], {0: 0, 1: 1}),
        (["1", "2"], ["2", "10"], {0: 1}),
    ],
)
def test_labels_match_by_name(old: list[str], new: list[str], expected: dict[int, int]) -> None:
    assert match_labels(old, new) == expected


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra"])
def test_a_new_head_starts_where_it_is_told_to(family: str, saved: Callable[..., str]) -> None:
    model = load(saved(family))
    _, layer = output_layer(model)
    bias = [0.5 * (row + 1) for row in range(layer.out_features)]
    assert start_at(model, bias, new=new_parameters(model))
    assert layer.bias.tolist() == bias


def test_rows_that_were_taken_over_and_heads_that_are_not_new_keep_their_bias(classifier: Callable[..., str]) -> None:
    model = load(classifier("neg", "pos"), names=("neg", "pos"))
    assert not start_at(model, [1.0, 1.0], new=new_parameters(model))
    wider = load(classifier("neg", "pos"), names=("neg", "mid", "pos"))
    assert start_at(wider, [1.0, 2.0, 3.0], new=new_parameters(wider))
    assert wider.classifier.bias.tolist() == [10, 2, 20]
