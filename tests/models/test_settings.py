"""A model's configuration: the user's edits, what the task decides, dropout and activation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.nn.modules.dropout import _DropoutNd

from nlp_finetune.errors import InputError
from nlp_finetune.models.checkpoint import resolve
from nlp_finetune.models.loading import load_config

from .conftest import MINILM, SIZES, Lines, labels, load


def config_of(checkpoint: str, edits: dict[str, Any] | None = None, **overrides: Any) -> Any:
    return load_config(resolve(checkpoint), overrides=overrides, edits=edits or {})


def rewrite(folder: str, **changes: Any) -> str:
    """Change keys of a folder's config.json; None removes one."""
    file = Path(folder) / "config.json"
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return folder


def test_the_task_decides_about_labels() -> None:
    config = config_of(MINILM, **labels("bad", "good", "mixed"), problem_type="multi_label_classification")
    assert config.id2label == {0: "bad", 1: "good", 2: "mixed"}
    assert (config.num_labels, config.problem_type) == (3, "multi_label_classification")


def test_edits_reach_the_configuration_under_either_of_a_fields_names() -> None:
    assert config_of("scratch:bert", {"hidden_size": 24, "num_attention_heads": 2}).hidden_size == 24
    assert config_of("scratch:distilbert", {"hidden_size": 24, "n_heads": 2}).dim == 24


def test_a_setting_that_only_the_code_of_the_family_reads_is_known() -> None:
    assert config_of("scratch:deberta-v2", {"position_buckets": 8}).position_buckets == 8


def test_from_scratch_the_vocabulary_starts_at_eight_thousand() -> None:
    assert config_of("scratch:bert").vocab_size == 8000
    assert config_of("scratch:bert", {"vocab_size": 99}).vocab_size == 99


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (
            {"hiden_size": 3},
            r"model\.config\.hiden_size: bert has no such setting\. Did you mean hidden_size",
        ),
        ({"num_labels": 3}, "the data and the task decide it"),
        ({"dtype": "float16"}, r"use train\.precision"),
        ({"hidden_size": "wide"}, "expected int, got str"),
    ],
)
def test_a_wrong_edit_is_named_by_its_path(edits: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config_of("scratch:bert", edits)


def test_all_wrong_edits_are_named_at_once() -> None:
    with pytest.raises(InputError, match=r"(?s)hiden_size.*layers"):
        config_of("scratch:bert", {"hiden_size": 3, "layers": 3})


def test_sizes_that_do_not_fit_each_other_are_the_users_mistake() -> None:
    with pytest.raises(InputError, match=r"can't be built with this model\.config"):
        load("scratch:bert", edits={"hidden_size": 10, "num_attention_heads": 4})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "ernie_m"}, "ernie_m is gone from transformers 5"),
        ({"model_type": "berd"}, "no model type 'berd'. Did you mean bert"),
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "x.Y"}},
            "Its own Python code would have to be run, which is off by default",
        ),
        ({"model_type": None}, "model.config.model_type=bert"),
        ({"quantization_config": {"bits": 4}}, "quantized weights"),
        ({"hidden_size": "wide"}, "its config.json is not valid for bert"),
    ],
)
def test_a_checkpoint_that_cannot_be_built_says_why(
    saved: Callable[..., str], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        config_of(rewrite(saved("bert"), **changes))


def test_a_configuration_without_model_type_takes_it_from_the_user(saved: Callable[..., str]) -> None:
    folder = rewrite(saved("bert"), model_type=None)
    assert config_of(folder, {"model_type": "bert"}).model_type == "bert"


def test_a_broken_config_json_is_named(saved: Callable[..., str]) -> None:
    folder = saved("bert")
    (Path(folder) / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: can't be read as JSON"):
        config_of(folder)


@pytest.mark.parametrize("family", [f for f in SIZES if f != "t5"])
def test_dropout_sets_every_probability_of_backbone_and_head(family: str) -> None:
    model = load(f"scratch:{family}", edits={**SIZES[family], "vocab_size": 60}, dropout=0.37)
    modules = [module.p for module in model.modules() if isinstance(module, _DropoutNd)]
    assert modules
    assert set(modules) == {0.37}
    fields = {k: v for k, v in model.config.to_dict().items() if "drop" in k and "layerdrop" not in k}
    assert set(fields.values()) == {0.37}, fields


def test_dropout_of_a_pretrained_model_leaves_the_given_configuration_alone() -> None:
    checkpoint = resolve(MINILM)
    config = load_config(checkpoint, overrides={}, edits={})
    model = load(MINILM, dropout=0.2)
    assert model.config.hidden_dropout_prob == model.config.classifier_dropout == 0.2
    assert config.hidden_dropout_prob == 0.1


def test_layerdrop_is_no_dropout() -> None:
    model = load("scratch:bart", edits={**SIZES["bart"], "vocab_size": 60, "encoder_layerdrop": 0.1}, dropout=0.4)
    assert model.config.encoder_layerdrop == 0.1


def test_another_activation_is_used_and_the_departure_said(saved: Callable[..., str], said: Lines) -> None:
    model = load(saved("bert"), said, activation="relu")
    assert type(model.bert.encoder.layer[0].intermediate.intermediate_act_fn).__name__ == "ReLU"
    assert "activation relu replaces gelu, which the checkpoint was trained with" in said


def test_the_checkpoints_own_activation_is_no_departure(saved: Callable[..., str], said: Lines) -> None:
    load(saved("bert"), said, activation="gelu")
    assert not any("activation" in line for line in said)


@pytest.mark.parametrize(
    ("family", "activation", "message"),
    [
        ("bert", "rellu", "no such function. Did you mean .*relu"),
        ("t5", "relu", "t5 can't change it by one name"),
    ],
)
def test_an_activation_that_cannot_be_had_is_refused(family: str, activation: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(f"scratch:{family}", edits=SIZES[family], activation=activation)
