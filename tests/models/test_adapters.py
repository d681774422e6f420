"""Adapters: what is trained, and that saving, loading and merging give the same model."""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from nlp_finetune.errors import InputError, NlpFinetuneError
from nlp_finetune.models import adapters
from nlp_finetune.models.adapted import load_merged
from nlp_finetune.models.checkpoint import Checkpoint
from nlp_finetune.models.summary import count_parameters
from tests.models.conftest import Lines, load
from tests.models.test_targets import resnet, scratch

# peft asks transformers for a property by its former name (peft 0.21, transformers 5.23).
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

METHODS = ("lora", "dora", "rslora", "pissa", "ia3", "vera")
CASES = [
    *((method, "bert", "AutoModelForSequenceClassification") for method in METHODS),
    *((method, "gpt2", "AutoModelForSequenceClassification") for method in METHODS),
    *((method, "roberta", "AutoModelForSequenceClassification") for method in ("ia3", "vera")),
    ("lora", "bert", "AutoModelForQuestionAnswering"),
    ("lora", "ernie", "AutoModelForTokenClassification"),
    ("lora", "albert", "AutoModelForMultipleChoice"),
    ("lora", "bert", "AutoModelForMaskedLM"),
    ("lora", "gpt2", "AutoModelForCausalLM"),
    ("pissa", "t5", "AutoModelForSeq2SeqLM"),
    ("lora", "modernbert", "AutoModel"),
    *((method, "resnet", "AutoModelForImageClassification") for method in ("lora", "dora", "ia3")),
]


DEFAULTS: dict[str, Any] = {
    "method": "lora", "rank": 4, "alpha": 16.0, "dropout": 0.05, "targets": "auto", "rank_pattern": {},
    "auto_class": "AutoModelForSequenceClassification", "seed": 1,
}  # fmt: skip


def build(family: str, auto_class: str) -> Any:
    if family == "resnet":
        return resnet(id2label={0: "a", 1: "b", 2: "c"})
    labelled = auto_class.endswith("Classification")
    return scratch(family, auto_class=auto_class, names=("a", "b", "c") if labelled else ())


def inputs(family: str, auto_class: str) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    if family == "resnet":
        return {"pixel_values": torch.randn(4, 3, 32, 32, generator=random)}
    shape = (2, 3, 8) if auto_class.endswith("MultipleChoice") else (2, 8)
    tokens = torch.randint(5, 50, shape, generator=random)
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if family in ("bert", "ernie"):
        batch["token_type_ids"] = (torch.arange(8) > 3).long().expand(shape)
    if family == "t5":
        batch["decoder_input_ids"] = tokens
    return batch


def answer(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return next(value for value in model.eval()(**batch).values() if torch.is_tensor(value))


def add(model: Any, base: str = "somewhere", *, said: Lines | None = None, **options: Any) -> PeftModel:
    return adapters.add(
        model, **{**DEFAULTS, **options}, base=adapters.Base(base), say=Lines() if said is None else said
    )


def train(adapted: PeftModel, batch: dict[str, torch.Tensor], *, steps: int = 2, seed: int = 0) -> None:
    """A few steps from a start that is not the identity, so that everything an adapter has counts."""
    random = torch.Generator().manual_seed(seed)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=random))
    optimizer = torch.optim.SGD(trained, lr=0.05)
    adapted.train()
    for _ in range(steps):
        outputs = adapted(**batch)
        sum(value.float().pow(2).mean() for value in outputs.values() if torch.is_tensor(value)).backward()
        optimizer.step()
        optimizer.zero_grad()


def plain(auto_class: str, base: Path, adapter: Path, **options: Any) -> Any:
    """The adapter on its base, loaded without this package's help."""
    model = getattr(transformers, auto_class).from_pretrained(base, **options)
    return PeftModel.from_pretrained(model, str(adapter))


@pytest.mark.parametrize(("method", "family", "auto_class"), CASES)
def test_adapter_on_base_and_merged_model_answer_like_the_trained_one(
    method: str, family: str, auto_class: str, tmp_path: Path
) -> None:
    model, batch = build(family, auto_class), inputs(family, auto_class)
    model.save_pretrained(tmp_path / "base")
    adapted = add(model, str(tmp_path / "base"), method=method, auto_class=auto_class)
    start = answer(adapted, batch)
    train(adapted, batch)
    expected = answer(adapted, batch)
    assert (expected - start).abs().max() > 1e-3
    adapters.export(adapted, tmp_path / "adapter")
    torch.testing.assert_close(
        answer(plain(auto_class, tmp_path / "base", tmp_path / "adapter"), batch), expected, atol=1e-5, rtol=1e-5
    )
    adapters.merge(adapted).save_pretrained(tmp_path / "merged")
    merged = getattr(transformers, auto_class).from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(answer(merged, batch), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_adapters_change_nothing_before_they_are_trained(method: str) -> None:
    model, batch = scratch("bert"), inputs("bert", "")
    expected = answer(copy.deepcopy(model), batch)
    torch.testing.assert_close(answer(add(model, method=method), batch), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_the_frozen_base_stays_bit_identical(family: str) -> None:
    model = build(
        family, "AutoModelForImageClassification" if family == "resnet" else "AutoModelForSequenceClassification"
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = add(model)
    train(adapted, inputs(family, ""))
    base = {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): value
        for name, value in adapted.get_base_model().state_dict().items()
        if "lora_" not in name and ".modules_to_save." not in name
    }
    assert base.keys() == before.keys()
    assert all(torch.equal(base[name], before[name]) for name in before)


@pytest.mark.parametrize("method", ["lora", "pissa"])
def test_two_adapters_share_a_base(method: str, tmp_path: Path) -> None:
    kind, batch = "AutoModelForSequenceClassification", inputs("bert", "")
    build("bert", kind).save_pretrained(tmp_path / "base")
    expected = {}
    for seed, name in enumerate(("first", "second")):
        adapted = add(load(str(tmp_path / "base")), method=method)
        train(adapted, batch, seed=seed)
        expected[name] = answer(adapted, batch)
        adapters.export(adapted, tmp_path / name)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    both = PeftModel.from_pretrained(model, str(tmp_path / "first"), adapter_name="first")
    both.load_adapter(str(tmp_path / "second"), "second")
    for name in expected:
        both.set_adapter(name)
        torch.testing.assert_close(answer(both, batch), expected[name], atol=1e-5, rtol=1e-5)


def test_a_pooler_drawn_anew_comes_back_with_the_adapter(saved: Callable[..., str], tmp_path: Path) -> None:
    base, batch = saved("bert", auto_class="AutoModelForMaskedLM"), inputs("bert", "")
    adapted = add(load(base), base)
    train(adapted, batch)
    adapters.export(adapted, tmp_path / "adapter")
    config = AutoConfig.from_pretrained(tmp_path / "adapter" / adapters.BASE_CONFIG)
    again = plain("AutoModelForSequenceClassification", Path(base), tmp_path / "adapter", config=config)
    assert torch.equal(answer(again, batch), answer(adapted, batch))
    assert again.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_a_vocabulary_head_drawn_anew_comes_back_and_stays_tied(saved: Callable[..., str], tmp_path: Path) -> None:
    base, batch, kind = saved("bert"), inputs("bert", ""), "AutoModelForMaskedLM"
    adapted = add(load(base, auto_class=kind, names=()), base, auto_class=kind)
    train(adapted, batch)
    adapters.export(adapted, tmp_path / "adapter")
    assert torch.equal(answer(plain(kind, Path(base), tmp_path / "adapter"), batch), answer(adapted, batch))
    merged = adapters.merge(adapted)
    assert merged.get_output_embeddings().weight is merged.get_input_embeddings().weight


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_restores_everything_that_is_trained(method: str, tmp_path: Path) -> None:
    batch = inputs("bert", "")
    trained = add(scratch("bert"), method=method)
    train(trained, batch)
    adapters.save(trained, tmp_path)
    fresh = add(scratch("bert"), method=method)
    adapters.load(fresh, tmp_path)
    assert torch.equal(answer(fresh, batch), answer(trained, batch))
    values = dict(trained.named_parameters())
    assert all(torch.equal(p, values[name]) for name, p in fresh.named_parameters() if p.requires_grad)
    assert [p.requires_grad for p in fresh.parameters()] == [p.requires_grad for p in trained.parameters()]


def test_a_checkpoint_of_other_adapters_is_refused(tmp_path: Path) -> None:
    adapters.save(add(scratch("bert"), targets=["query"]), tmp_path)
    with pytest.raises(NlpFinetuneError, match="does not fit this model"):
        adapters.load(add(scratch("bert"), targets=["key"]), tmp_path)


def test_what_is_put_in_is_said_in_one_line() -> None:
    said = Lines()
    add(scratch("bert"), said=said)
    add(resnet(), said=said, method="ia3")
    assert said == [
        "lora rank 4 on 12 layers (query, key, value, dense); trained whole: classifier; "
        "1,715 of 7,571 parameters trained (22.65%)",
        "ia3 on 7 layers (convolution); trained whole: classifier, 8 x BatchNorm; "
        "233 of 1,845 parameters trained (12.63%)",
    ]


def test_parameters_are_counted_once() -> None:
    model = scratch("bert")
    before = sum(p.numel() for p in model.parameters())
    adapted = add(model)
    total, trained = count_parameters(adapted)
    added = sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)
    assert (total, trained) == (before + added, added + 16 * 3 + 3)


def test_ranks_may_differ_by_layer() -> None:
    adapted = add(scratch("bert"), rank_pattern={"query": 2, r"layer\.1\..*dense": 1})
    ranks = {name: p.shape[0] for name, p in adapted.named_parameters() if "lora_A" in name}
    assert {rank for name, rank in ranks.items() if "query" in name} == {2}
    assert {rank for name, rank in ranks.items() if "layer.1" in name and "dense" in name} == {1}
    assert {rank for name, rank in ranks.items() if "key" in name} == {4}


def test_the_same_seed_draws_the_same_adapters_and_leaves_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, two = add(scratch("bert")), add(scratch("bert"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "vera"}, "vera adapts linear layers only"),
        ({"method": "pissa"}, "pissa adapts linear layers only"),
        ({"targets": ["query"]}, r"no layer of this model is called so. Its layers end in convolution"),
    ],
)
def test_what_a_resnet_can_not_have_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        add(resnet(), **options)


def test_a_rank_must_fit_groups_and_weights() -> None:
    grouped = resnet()
    grouped.resnet.encoder.stages[0].layers[0].layer[0].convolution = torch.nn.Conv2d(8, 8, 3, groups=8)
    with pytest.raises(InputError, match=r"lora.rank 4: .* has 8 groups"):
        add(grouped)
    with pytest.raises(InputError, match="smallest side here is 16"):
        add(scratch("bert"), method="pissa", rank=17)


def test_peft_is_told_what_the_model_does_where_its_class_passes_all_inputs_on(tmp_path: Path) -> None:
    found = {}
    for auto_class in ("AutoModelForSequenceClassification", "AutoModelForQuestionAnswering"):
        adapters.save(add(build("bert", auto_class), auto_class=auto_class), tmp_path)
        saved = json.loads((tmp_path / "adapter_config.json").read_text())
        found[auto_class] = (saved["task_type"], (saved["auto_mapping"] or {}).get("base_model_class"))
    # peft's class for question answering drops token_type_ids.
    assert found == {
        "AutoModelForSequenceClassification": ("SEQ_CLS", None),
        "AutoModelForQuestionAnswering": (None, "BertForQuestionAnswering"),
    }


def test_a_base_from_scratch_is_saved_with_the_adapter(tmp_path: Path) -> None:
    model = scratch("bert")
    checkpoint, keep = Checkpoint("scratch:bert", "scratch", "bert", None), tmp_path / "base"
    base = adapters.find_base(checkpoint, model, keep=keep)
    assert base == adapters.Base(str(keep))
    before, batch = answer(copy.deepcopy(model), inputs("bert", "")), inputs("bert", "")
    adapted = adapters.add(model, **DEFAULTS, base=base, say=Lines())
    train(adapted, batch)
    assert not keep.exists()
    adapters.export(adapted, tmp_path / "adapter")
    kept = transformers.AutoModelForSequenceClassification.from_pretrained(keep)
    assert torch.equal(answer(kept, batch), before)


def test_a_base_in_a_folder_is_named_and_not_copied(tmp_path: Path) -> None:
    checkpoint = Checkpoint("here", "folder", "/somewhere/here", None)
    base = adapters.find_base(checkpoint, scratch("bert"), keep=tmp_path / "base")
    assert (base, base.unsaved) == (adapters.Base("/somewhere/here"), None)


def test_an_adapter_does_not_load_on_a_base_whose_weights_have_changed(tmp_path: Path) -> None:
    scratch("bert").save_pretrained(tmp_path / "base")
    base = adapters.find_base(
        Checkpoint("here", "folder", str(tmp_path / "base"), None), scratch("bert"), keep=tmp_path
    )
    trained = adapters.add(scratch("bert"), **DEFAULTS, base=base, say=Lines())
    adapters.export(trained, tmp_path / "adapter")
    load = partial(load_merged, tmp_path / "adapter", auto_class="AutoModelForSequenceClassification", say=Lines())
    load()
    file = tmp_path / "base" / "model.safetensors"
    changed = load_file(file)
    changed["classifier.bias"].add_(1)
    save_file(changed, file, {"format": "pt"})
    with pytest.raises(InputError, match="weights have changed since the adapter was trained on them"):
        load()


def test_a_base_on_the_hub_is_named_with_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "local_folder", lambda *_, **__: tmp_path / "snapshots" / "0123abc")
    hub = Checkpoint("me/bert", "hub", "me/bert", "main")
    base = adapters.find_base(hub, scratch("bert"), keep=tmp_path)
    adapters.save(adapters.add(scratch("bert"), **DEFAULTS, base=base, say=Lines()), tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["base_model_name_or_path"], saved["revision"]) == ("me/bert", "0123abc")


def test_a_model_without_memory_takes_adapters_too() -> None:
    from nlp_finetune.models.summary import layer_groups

    with torch.device("meta"):
        model = scratch("bert")
    add(model, method="pissa")
    groups = {group.name: group.trainable for group in layer_groups(model)}
    assert groups["bert.embeddings"] == 0
    assert 0 < groups["bert.encoder.layer.0"] < 0.5
    assert groups["classifier"] == 1
    assert any(isinstance(part, ModulesToSaveWrapper) for part in model.modules())


@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_in_bf16_inputs_of_adapters_are_not_made_larger_and_results_are_the_same(method: str) -> None:
    def gradients(*, casts: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = adapters.add(
            build("bert", DEFAULTS["auto_class"]), **{**DEFAULTS, "method": method, "dropout": 0.0},
            base=adapters.Base("bert"), say=lambda _: None,
        )  # fmt: skip
        given: list[torch.dtype] = []
        for name, layer in model.named_modules():
            if hasattr(layer, "cast_input_dtype_enabled"):
                layer.cast_input_dtype_enabled |= casts
            if ".lora_A." in name:
                layer.register_forward_pre_hook(lambda _module, values: given.append(values[0].dtype))
            if ".lora_B." in name:
                torch.nn.init.normal_(layer.weight)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**inputs("bert", DEFAULTS["auto_class"])).logits.float().square().sum()
        loss.backward()
        assert (torch.bfloat16 in given) is not casts
        return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    for one, other in zip(gradients(casts=False), gradients(casts=True), strict=True):
        assert torch.equal(one, other)
