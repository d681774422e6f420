"""Checkpoints become models in fp32, and one line says what is new; what would train from noise is refused."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer, ErnieForSequenceClassification, ErnieModel

from nlp_finetune.errors import InputError
from nlp_finetune.models.checkpoint import resolve
from nlp_finetune.models.loading import load_config, load_model, load_saved_model

from .conftest import MINILM, SIZES, Lines, labels, load


def edit_weights(folder: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> str:
    """Rewrite a folder's weights."""
    file = Path(folder) / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def edit_config(folder: str, **changes: Any) -> str:
    file = Path(folder) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def test_one_line_tells_the_new_head_of_a_real_checkpoint(said: Lines) -> None:
    model = load(MINILM, said, head_init="xavier")
    assert said == ["new head 384->3 (classifier), xavier_uniform, 1,155 parameters; backbone 100 % loaded"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_backbone_is_the_checkpoints_to_the_bit() -> None:
    weights = load_file(Path(resolve(MINILM).location) / "model.safetensors")
    state = load(MINILM).state_dict()
    parameters = {name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}
    assert all(torch.equal(state[f"bert.{name}"], tensor) for name, tensor in parameters.items())


def test_half_precision_weights_are_loaded_in_fp32(saved: Callable[..., str]) -> None:
    folder = edit_weights(saved("bert"), lambda weights: {n: t.half() for n, t in weights.items()})
    model = load(edit_config(folder, dtype="float16"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", [f for f in SIZES if f not in ("bart", "t5")])
def test_every_family_gets_a_head_on_a_complete_backbone(saved: Callable[..., str], said: Lines, family: str) -> None:
    model = load(saved(family), said)
    ids = torch.ones(2, 5, dtype=torch.long)
    assert model(input_ids=ids, attention_mask=ids).logits.shape == (2, 3)
    assert said[0].startswith("new head 16->")
    assert said[0].endswith("backbone 100 % loaded")


def test_a_missing_pooler_starts_anew_and_is_said(saved: Callable[..., str], said: Lines) -> None:
    load(saved("bert", auto_class="AutoModelForMaskedLM"), said)
    assert "(bert.pooler.dense is not in the checkpoint and starts anew)" in said[0]
    assert "backbone 100 %" not in said[0]
    assert said[1] == "not used from the checkpoint: cls.* (5 tensors)"


def test_a_language_model_loads_whole(saved: Callable[..., str], said: Lines) -> None:
    folder = saved("gpt2", auto_class="AutoModelForCausalLM")
    load(folder, said, auto_class="AutoModelForCausalLM", names=())
    assert said == ["backbone 100 % loaded"]


def test_ernie_weights_under_the_name_of_bert_are_refused(saved: Callable[..., str]) -> None:
    folder = edit_config(saved("ernie", auto_class="AutoModelForMaskedLM"), model_type="bert")
    with pytest.raises(
        InputError,
        match=r"backbone parameters are not in the checkpoint.*model_type bert, its weights are called .*ernie\.\*",
    ):
        load(folder)


def test_a_backbone_of_another_size_is_refused(saved: Callable[..., str]) -> None:
    with pytest.raises(InputError, match="disagree about sizes"):
        load(saved("bert"), edits={"intermediate_size": 48})


def test_more_layers_than_the_checkpoint_has_are_refused(saved: Callable[..., str]) -> None:
    with pytest.raises(InputError, match=r"16 of \d+ backbone parameters are not in the checkpoint"):
        load(saved("bert"), edits={"num_hidden_layers": 3})


def test_fewer_layers_are_taken_and_said(saved: Callable[..., str], said: Lines) -> None:
    model = load(saved("bert"), said, edits={"num_hidden_layers": 1})
    assert len(model.bert.encoder.layer) == 1
    assert said[1] == (
        "not used from the checkpoint: encoder.* (16 tensors); 16 of them belong to the backbone "
        "(encoder.layer.1.attention.output.LayerNorm.bias), which is not the same without"
    )


def test_ernie_without_its_task_embedding_is_said(saved: Callable[..., str], said: Lines) -> None:
    load(
        saved("ernie", auto_class="AutoModelForSequenceClassification"),
        said,
        edits={"use_task_id": False},
        names=("LABEL_0", "LABEL_1"),
    )
    assert any("ernie.embeddings.task_type_embeddings.weight" in line for line in said)


def test_ernie_is_saved_and_loaded_with_equal_outputs_and_its_task_ids(
    saved: Callable[..., str], tmp_path: Path
) -> None:
    model = load(saved("ernie")).eval()
    assert isinstance(model, ErnieForSequenceClassification)
    assert isinstance(model.ernie, ErnieModel)
    model.save_pretrained(tmp_path / "tuned")
    again = load_saved_model(tmp_path / "tuned", auto_class="AutoModelForSequenceClassification")
    ids = torch.arange(12).reshape(2, 6)
    first, second = (m(input_ids=ids, task_type_ids=torch.zeros_like(ids)).logits for m in (model, again))
    assert torch.equal(first, second)
    assert not torch.equal(first, again(input_ids=ids, task_type_ids=torch.ones_like(ids)).logits)
    assert again.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_a_family_without_this_head_names_those_it_has() -> None:
    with pytest.raises(InputError, match=r"gpt2 has no AutoModelForMaskedLM.*AutoModelForCausalLM"):
        load("scratch:gpt2", auto_class="AutoModelForMaskedLM", edits=SIZES["gpt2"])


def test_from_scratch_is_said_and_follows_the_seed(said: Lines) -> None:
    edits = {**SIZES["bert"], "vocab_size": 60}
    one, same, other = (load("scratch:bert", said, edits=edits, seed=seed).state_dict() for seed in (1, 1, 2))
    assert said[0].startswith("scratch:bert: ")
    assert said[0].endswith("all drawn at random (seed 1): nothing is pretrained")
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_a_tokenizer_beyond_the_embedding_is_refused_with_the_model_at_hand(saved: Callable[..., str]) -> None:
    tokenizer = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "far": 60})
    with pytest.raises(InputError, match="ids go up to 60, the model has 60 rows"):
        load(saved("bert"), tokenizer=tokenizer)


def test_pickled_weights_are_read_where_there_are_no_others(saved: Callable[..., str], said: Lines) -> None:
    folder = Path(saved("bert"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    load(str(folder), said)
    assert said[0].endswith("backbone 100 % loaded")


class Malicious:
    """Unpickling this would run a command."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (os.environ["MALICIOUS_FOLDER"],)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(
    saved: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALICIOUS_FOLDER", str(tmp_path / "was_run"))
    folder = Path(saved("bert"))
    (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as stream:
        pickle.dump({"weight": Malicious()}, stream, protocol=2)
    with pytest.raises(InputError, match="can't be read safely"):
        load(str(folder))
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not a header", "its weights are damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer.*git lfs pull"),
        (b"", "its weights are damaged"),
        (None, "no weights .*it holds config"),
    ],
)
def test_weights_that_cannot_be_read_say_why(saved: Callable[..., str], content: bytes | None, message: str) -> None:
    file = Path(saved("bert")) / "model.safetensors"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(str(file.parent))


def test_truncated_weights_are_refused(saved: Callable[..., str]) -> None:
    file = Path(saved("bert")) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="its weights are damaged"):
        load(str(file.parent))


def test_nothing_but_our_lines_is_printed(
    saved: Callable[..., str], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved("bert", auto_class="AutoModelForMaskedLM")
    capfd.readouterr()
    load(folder)
    printed = capfd.readouterr()
    assert (printed.out, printed.err, caplog.records) == ("", "", [])


def test_the_models_name_is_where_it_came_from() -> None:
    assert load(MINILM).config.name_or_path == resolve(MINILM).location


def test_the_given_configuration_is_not_changed(saved: Callable[..., str]) -> None:
    checkpoint = resolve(saved("bert"))
    config = load_config(checkpoint, overrides=labels("a", "b"), edits={})
    before = config.to_dict()
    load_model(
        checkpoint, auto_class="AutoModelForSequenceClassification", config=config, tokenizer=None,
        head_init="default", dropout=0.3, activation="relu", seed=1, say=lambda line: None,
    )  # fmt: skip
    assert config.to_dict() == before


def test_a_saved_model_with_a_lost_tensor_is_refused(saved: Callable[..., str]) -> None:
    folder = saved("bert", auto_class="AutoModelForSequenceClassification", names=("a", "b"))
    edit_weights(folder, lambda weights: {n: t for n, t in weights.items() if n != "classifier.bias"})
    with pytest.raises(InputError, match=r"do not belong together \(classifier\.bias\)"):
        load_saved_model(Path(folder), auto_class="AutoModelForSequenceClassification")


def test_a_sharded_checkpoint_loads(saved: Callable[..., str], said: Lines, tmp_path: Path) -> None:
    model = load(saved("bert"))
    model.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    shutil.rmtree(tmp_path / "checkpoint")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    again = load(str(tmp_path / "shards"), said)
    assert torch.equal(again.classifier.weight, model.classifier.weight)
