"""Which number format training computes in, and what is said about it."""

import pytest
import torch

from nlp_finetune.errors import InputError
from nlp_finetune.learning import precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("able", [True, False])
def test_auto_is_fp32_on_a_cpu_and_names_what_is_faster_there(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: able)
    said: list[str] = []
    assert precision.choose_precision("auto", CPU, said.append) == "fp32"
    assert ("train.precision=bf16 is faster" in said[0]) == able


@pytest.mark.parametrize("able", [True, False])
def test_bf16_is_taken_on_any_cpu_and_called_slow_where_it_is(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: able)
    said: list[str] = []
    assert precision.choose_precision("bf16", CPU, said.append) == "bf16"
    assert ("fp32 is faster" in said[0]) != able


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(InputError, match="needs a GPU"):
        precision.choose_precision("fp16", CPU, lambda _: None)


def test_the_machine_s_features_are_read() -> None:
    assert precision.cpu_has_bf16() in (True, False)
