"""Batches without padding: logits, loss and every gradient are those of the padded batch, for every family and task."""

import copy
from typing import Any

import pytest
import torch

from nlp_finetune.learning.losses import build_loss
from nlp_finetune.models import row_attention
from nlp_finetune.models.packing import NotPackableError, Packing, fault
from tests.tasks.families import Setting, fits, make
from tests.tasks.test_families import adapted_model

TASKS = (
    "text_classification", "token_classification", "question_answering", "masked_lm", "causal_lm", "multiple_choice",
)  # fmt: skip
PACKABLE = (
    "bert", "ernie", "roberta", "xlm-roberta", "electra", "albert", "distilbert", "modernbert", "mpnet", "deberta",
    "deberta-v2", "gpt2",
)  # fmt: skip
FAST = {
    ("bert", "text_classification"), ("roberta", "token_classification"), ("albert", "question_answering"),
    ("modernbert", "masked_lm"), ("gpt2", "causal_lm"), ("mpnet", "multiple_choice"),
    ("deberta-v2", "text_classification"), ("gpt2", "text_classification"),
}  # fmt: skip
PAIRS = [(family, task) for family in PACKABLE for task in TASKS if fits(family, task)]
MATRIX = [pytest.param(*pair, marks=[] if pair in FAST else pytest.mark.slow, id="-".join(pair)) for pair in PAIRS]


def step(setting: Setting, model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Loss, outputs where no padding is, and gradients of a training step."""
    objective = setting.task.objective(build_loss(setting.task.losses()[0]))
    model.train().zero_grad()
    loss, outputs = objective(model, setting.batch, setting.task.count_items(setting.batch))
    loss.backward()
    real = setting.batch["attention_mask"].bool()
    shown = {
        name: (value[real] if value.shape[:2] == real.shape else value).detach()
        for name, value in outputs.items()
        if "logits" in name
    }
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), shown, gradients


def assert_same(setting: Setting, model: Any) -> None:
    """A training step of the model is the same with and without padding."""
    with torch.no_grad():  # as they are drawn, models this small hardly look at their input
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dim() > 1:
                parameter.normal_(std=0.15)
    packed = copy.deepcopy(model)
    packing = Packing(packed)
    loss, outputs, gradients = step(setting, packed)
    assert packing.used
    assert (setting.batch["attention_mask"] == 0).any()
    expected_loss, expected, expected_gradients = step(setting, model)
    close(loss, expected_loss)
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        close(outputs[name], value)
    assert gradients.keys() == expected_gradients.keys()
    for value in expected_gradients.values():
        assert value.isfinite().all()
    largest = max(float(value.abs().max()) for value in expected_gradients.values())
    assert largest > 1e-3
    for name, value in expected_gradients.items():
        apart = float((gradients[name] - value).abs().max())
        assert apart <= 3e-5 * largest, f"{name}: {apart:.2g} of {largest:.2g}"


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize(("family", "task"), MATRIX)
def test_a_step_is_the_padded_one(family: str, task: str) -> None:
    setting = make(family, task)
    assert_same(setting, setting.model)


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name == "bert" else pytest.mark.slow) for name in PACKABLE]
)
def test_a_step_with_adapters_is_the_padded_one(family: str) -> None:
    task = "causal_lm" if family == "gpt2" else "token_classification"
    setting = make(family, task)
    assert_same(setting, adapted_model(setting, setting.model, "base"))


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_an_encoder_with_a_decoder_is_refused(family: str) -> None:
    with pytest.raises(NotPackableError, match="decoder"):
        Packing(make(family, "seq2seq").model)


def run_of(setting: Setting) -> Any:
    return lambda: setting.model(**setting.task.model_inputs(setting.batch))


@pytest.mark.parametrize("family", ["bert", "deberta", "gpt2"])
def test_a_family_that_can_do_it_is_found_without_fault(family: str) -> None:
    setting = make(family, "text_classification")
    assert fault(Packing(setting.model), run_of(setting)) is None
    assert setting.model.training


def test_a_model_that_looks_across_rows_is_found_out() -> None:
    setting = make("bert", "text_classification")
    packing = Packing(setting.model)
    setting.model.bert.encoder.layer[0].register_forward_hook(
        lambda module, args, output: output + output.mean(1, keepdim=True)
    )
    assert "hidden states differ" in str(fault(packing, run_of(setting)))


def test_evaluation_is_padded() -> None:
    setting = make("bert", "text_classification")
    packing = Packing(setting.model)
    setting.answer(setting.model)
    assert not packing.used


def test_what_one_model_did_last_is_nothing_to_another() -> None:
    packed, other = make("bert", "text_classification"), make("bert", "text_classification")
    Packing(packed.model)
    step(packed, packed.model)
    expected = other.answer(other.model)
    row_attention.use(other.model)
    close(other.answer(other.model), expected)
