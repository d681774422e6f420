"""What makes training faster is refused by name where a model can't have it, and left off where it is not asked for."""

from dataclasses import replace
from typing import Any

import pytest

from nlp_finetune import faster
from nlp_finetune.data.batching import BatchPlan
from nlp_finetune.errors import InputError
from nlp_finetune.learning.losses import build_loss
from nlp_finetune.recipe import Recipe, load
from nlp_finetune.runtime import Runtime
from nlp_finetune.tasks.base import find, names, options_of
from tests.tasks.families import Setting, make


def recipe(*overrides: str, name: str = "text_cls") -> Recipe:
    return load(name, overrides=overrides, task_options=options_of, task_names=names()).recipe


def packs(settings: Recipe, setting: Setting) -> bool:
    import torch

    here = Runtime(0, 1, 0, 1, torch.device("cpu"), 1)
    lengths = setting.batch["attention_mask"].sum(-1).tolist()
    return faster.packed(
        settings, setting.task, setting.model, lengths,
        lambda: setting.model(**setting.task.model_inputs(setting.batch)), here,
    )  # fmt: skip


def test_a_family_that_cannot_do_without_padding_is_refused_by_name() -> None:
    setting = make("bart", "seq2seq")
    with pytest.raises(InputError, match="bart can't train without padding here: an encoder and a decoder"):
        packs(recipe("train.packing=on", name="seq2seq"), setting)
    assert not packs(recipe("train.bucket=false", name="seq2seq"), setting)


def test_auto_packs_where_rows_of_all_lengths_meet() -> None:
    assert not packs(recipe(), make("bert", "text_classification"))
    assert packs(recipe("train.bucket=false"), make("bert", "text_classification"))
    assert not packs(recipe("train.bucket=false", "train.packing=off"), make("bert", "text_classification"))


def test_another_layout_is_refused_where_nothing_is_convolved_or_weights_are_shards() -> None:
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    from nlp_finetune.tasks.base import find

    here = Runtime(0, 1, 0, 1, torch.device("cpu"), 1)
    text = make("bert", "text_classification")
    with pytest.raises(InputError, match="channels_last on: this model has no convolutions"):
        faster.channels_last("on", text.task, text.model, "fp32", here)
    task = find("image_classification")(options_of("image_classification")())
    network = ResNetForImageClassification(ResNetConfig(depths=[1], hidden_sizes=[8], embedding_size=8))
    with pytest.raises(InputError, match="channels_last on: fsdp keeps shards"):
        faster.channels_last("on", task, network, "fp32", replace(here, strategy="fsdp"))


def cuts(settings: Recipe, setting: Setting) -> bool:
    import torch

    here = Runtime(0, 1, 0, 1, torch.device("cpu"), 1)
    objective = setting.task.objective(build_loss(setting.task.losses()[0]))
    return faster.first_token_only(
        settings, setting.task, setting.model,
        lambda: objective(setting.model, setting.batch, setting.task.count_items(setting.batch)), here,
    )  # fmt: skip


def test_a_last_block_for_first_tokens_is_refused_where_the_head_reads_others() -> None:
    setting = make("bert", "token_classification")
    with pytest.raises(InputError, match=r"it can't be computed for the first token alone \(logits .* do not fit"):
        cuts(recipe("train.first_token_only=on", name="token_cls"), setting)
    assert not cuts(recipe(name="token_cls"), setting)


def test_auto_computes_the_last_block_for_first_tokens_where_the_head_reads_no_other() -> None:
    assert cuts(recipe(), make("bert", "text_classification"))
    assert not cuts(recipe("train.first_token_only=off"), make("bert", "text_classification"))


def compile_it(settings: Recipe, *, strategy: str = "single", has_cache: bool = False, kind: str = "bert") -> Any:
    import torch

    here = replace(Runtime(0, 1, 0, 1, torch.device("cpu"), 1), strategy=strategy)
    setting = make(kind, "seq2seq" if kind == "bart" else "text_classification")
    task = find(settings.task.name)(settings.task)
    plan = BatchPlan([4] * 8, 4, 2, seed=1)
    return faster.compiled(
        settings, task, setting.model, plan, here, recomputes=False, has_cache=has_cache
    ), setting.model


def test_nothing_is_compiled_that_was_not_asked_for() -> None:
    callbacks, model = compile_it(recipe())
    assert callbacks == []
    assert "forward" not in vars(model.base_model)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
def test_the_backbone_alone_is_compiled() -> None:
    _, model = compile_it(recipe("train.compile=on"))
    assert "forward" in vars(model.base_model)
    assert "forward" not in vars(model)


@pytest.mark.parametrize(
    ("overrides", "how", "reason"),
    [
        ((), {"strategy": "fsdp"}, "fsdp gathers weights by block"),
        ((), {"has_cache": True}, "frozen layers are computed once"),
        ((), {"kind": "bart"}, "an encoder and a decoder have rows of two kinds"),
        (("regularize.r_drop=1",), {}, "run the model twice a step"),
        (("regularize.adversarial=1",), {}, "run the model twice a step"),
        (("freeze.gradual=epoch",), {}, "changes what trains"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_the_reason(
    overrides: tuple[str, ...], how: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=f"train.compile on: .*{reason}"):
        compile_it(recipe("train.compile=on", *overrides), **how)


def test_a_model_that_runs_several_times_a_step_is_not_compiled() -> None:
    with pytest.raises(InputError, match="the task runs the model several times a step"):
        compile_it(recipe("train.compile=on", name="embedding"))


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="there is no C\\+\\+ compiler"):
        compile_it(recipe("train.compile=on"))


@pytest.mark.parametrize(
    "other", ["train.packing=on", "train.max_tokens=64", "train.gradient_checkpointing=on"], ids=lambda text: text
)
def test_a_recipe_does_not_compile_what_has_many_shapes(other: str) -> None:
    with pytest.raises(InputError, match=r"train.compile .*: not together with train\."):
        recipe("train.compile=on", other)
