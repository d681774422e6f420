"""A head of one's own on an encoder: what it computes, and that plain transformers loads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, GPT2Config, PretrainedConfig, T5Config

from nlp_finetune.errors import InputError
from nlp_finetune.models import own_head
from nlp_finetune.models.encoder_with_head import Pooling
from nlp_finetune.models.own_head import OwnHead
from nlp_finetune.models.summary import parts
from tests.command_line import run
from tests.tiny import TINY

BERT = BertConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=50, num_labels=3
)
IDS = torch.tensor([[5, 6, 7, 0], [8, 9, 10, 11]])
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "attention"])
@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_padding_does_not_change_a_row(pooling: str, norm: str) -> None:
    model = own_head.bare(BERT, OwnHead(2, 8, norm, pooling)).eval()
    alone = model(input_ids=IDS[:1, :3]).logits
    torch.testing.assert_close(model(input_ids=IDS, attention_mask=MASK).logits[:1], alone)


def test_pooling_is_what_its_name_says() -> None:
    states = torch.randn(2, 4, 16)
    assert torch.equal(Pooling("cls", 16)(states, MASK), states[:, 0])
    torch.testing.assert_close(Pooling("mean", 16)(states, MASK)[0], states[0, :3].mean(0))
    torch.testing.assert_close(Pooling("max", 16)(states, MASK)[0], states[0, :3].amax(0))
    attention = Pooling("attention", 16)
    torch.nn.init.zeros_(attention.score.weight)
    torch.testing.assert_close(attention(states, MASK), Pooling("mean", 16)(states, MASK))


def test_without_hidden_layers_the_head_is_linear_on_what_is_pooled() -> None:
    model = own_head.bare(BERT, OwnHead(0, None, "none", "cls")).eval()
    states = model.encoder(input_ids=IDS, attention_mask=MASK).last_hidden_state
    torch.testing.assert_close(model(input_ids=IDS, attention_mask=MASK).logits, model.head.classifier(states[:, 0]))


def test_the_parts_of_a_model_with_a_head_of_its_own_are_found_by_structure() -> None:
    found = [(part.name, part.kind) for part in parts(own_head.bare(BERT, OwnHead(1, None, "none", "attention")))]
    assert found == [
        ("encoder.embeddings", "embeddings"), ("encoder.encoder.layer.0", "block"),
        ("pooling", "head"), ("head", "head"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "pooling", "message"),
    [
        (GPT2Config(), "cls", "first token of gpt2 sees none of the others; use mean"),
        (T5Config(), "mean", "t5 is no plain encoder"),
        (own_head.make_config(BERT, OwnHead(1, None, "none", "cls"), dropout=None), "cls", "brings a head of its own"),
    ],
)
def test_what_can_have_no_such_head_is_refused(config: PretrainedConfig, pooling: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        own_head.check(config, OwnHead(1, None, "none", pooling), auto_class=own_head.AUTO_CLASS, task="a task")


def test_other_families_may_have_one() -> None:
    for config, pooling in ((DistilBertConfig(), "cls"), (GPT2Config(), "attention"), (BERT, "max")):
        own_head.check(config, OwnHead(1, None, "none", pooling), auto_class=own_head.AUTO_CLASS, task="a task")


HEAD = ("head.layers=2", "head.width=24", "head.norm=batch", "head.pooling=attention", "train.max_steps=6")
FRESH = """
import json, sys
sys.modules["torchvision"] = None  # one that does not load beside this torch must not matter to texts
from transformers import pipeline
pipe = pipeline("text-classification", sys.argv[1], trust_remote_code=True, top_k=None)
print(json.dumps({one["label"]: one["score"] for one in pipe([sys.argv[2]])[0]}))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("head")
    done = run(*TINY, *HEAD, "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    assert "attention pooling, 32->24->24->3, batch norm" in done.stderr
    assert "BatchNorm normalises over the rows of a micro batch" in done.stderr
    return folder / "run"


def test_a_fresh_process_loads_the_model_with_transformers_alone(trained: Path, tmp_path: Path) -> None:
    assert (trained / "model" / "encoder_with_head.py").is_file()
    text = "Good soup, and a long wait."
    done = subprocess.run(
        [sys.executable, "-c", FRESH, trained / "model", text], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (ours,) = json.loads(run("predict", trained, "--text", text, "--json", cwd=tmp_path).stdout)
    assert json.loads(done.stdout) == pytest.approx(ours["scores"], abs=1e-6)
    assert "trust_remote_code=True" in (trained / "README.md").read_text("utf-8")


def test_evaluate_gives_the_scores_of_the_run(trained: Path, tmp_path: Path) -> None:
    done = run("evaluate", trained, "--split", "validation", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    scores = json.loads((trained / "metrics.json").read_text())["validation"]
    assert json.loads(done.stdout)["metrics"]["accuracy"] == pytest.approx(scores["accuracy"])


@pytest.mark.slow
def test_both_engines_train_it_alike_and_a_run_goes_on_from_it(trained: Path, tmp_path: Path) -> None:
    done = run(*TINY, *HEAD, "train.engine=accelerate", "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    file = "model/model.safetensors"
    assert (tmp_path / "run" / file).read_bytes() == (trained / file).read_bytes()
    again = (*TINY[:2], f"model.checkpoint={trained}", *TINY[5:], "train.max_steps=2")
    done = run(*again, "output_dir=next", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "kept as they are" in done.stderr
    refused = run(*again, "head.layers=1", "output_dir=other", cwd=tmp_path)
    assert (refused.code, "brings a head of its own" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("head.layers=0", "head.norm=batch"), "there is no hidden layer where head.layers is 0"),
        (("head.poling=mean",), "did you mean 'pooling'?"),
        (("head.pooling=mean", "lora.rank=4"), "head: not together with lora"),
        (("head.pooling=mean", "freeze.until.target=0.9"), "head (command line): not together with freeze.until"),
        (("head.norm=batch", "train.micro_batch_size=1"), "BatchNorm normalises over the rows of a micro batch"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    more: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = run(*TINY, *more, "output_dir=run", cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_check_shows_the_head(tmp_path: Path) -> None:
    done = run("check", *TINY, "head.pooling=mean", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert [one["name"] for one in json.loads(done.stdout)["plan"]["layers"]][-1] == "head"


def test_an_encoder_keeps_its_weights_under_a_head(tmp_path: Path) -> None:
    from nlp_finetune.models.checkpoint import resolve

    BertModel(BERT).save_pretrained(tmp_path)
    said: list[str] = []
    model = own_head.load(
        resolve(str(tmp_path)), OwnHead(1, None, "none", "mean"), config=BERT, tokenizer=None, head_init="xavier",
        dropout=None, activation=None, seed=1, say=said.append,
    )  # fmt: skip
    before = BertModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    assert "mean pooling, 16->16->3, xavier_uniform" in said[-1]
