"""Runs with adapters: what is in the folder, what others can load, and that a stop changes nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.command_line import run
from tests.tiny import TINY

LORA = ("lora.rank=4", "model.dropout=0.1", "train.max_steps=8", "train.eval_every=8", "train.save_every=4")
PLAIN = """
import json, sys
try:
    import torchvision
except Exception:  # a torchvision that cannot be imported breaks transformers' classes
    sys.modules["torchvision"] = None
import torch
from peft import PeftConfig, PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

adapter, merged, text = sys.argv[1:]
base = PeftConfig.from_pretrained(adapter)
model = AutoModelForSequenceClassification.from_pretrained(
    base.base_model_name_or_path,
    revision=base.revision,
    config=AutoConfig.from_pretrained(adapter, subfolder="base_config"),
)
model = PeftModel.from_pretrained(model, adapter).eval()
tokenizer = AutoTokenizer.from_pretrained(adapter)
with torch.no_grad():
    scores = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0].tolist()
found = {"adapter": {model.config.id2label[i]: score for i, score in enumerate(scores)}}
answer = pipeline("text-classification", merged, top_k=None)(text)[0]
found["merged"] = {part["label"]: part["score"] for part in answer}
assert not any(name.startswith("nlp_finetune") for name in sys.modules)
print(json.dumps(found))
"""


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def weights(folder: Path) -> dict:
    return load_file(folder / "model" / "model.safetensors")


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def loaded_elsewhere(folder: Path, text: str) -> dict:
    command = [sys.executable, "-c", PLAIN, str(folder / "adapter"), str(folder / "model"), text]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of eight steps; its only evaluation is at the end."""
    folder = tmp_path_factory.mktemp("lora")
    done = run(*TINY, *LORA, "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    assert "lora rank 4 on 12 layers (query, key, value, dense); trained whole: classifier" in done.stderr
    return folder / "run"


def test_a_run_saves_the_adapter_beside_the_merged_model(finished: Path) -> None:
    assert {f.name for f in (finished / "adapter").iterdir()} >= {
        "adapter_config.json", "adapter_model.safetensors", "base_config", "tokenizer.json",
    }  # fmt: skip
    merged, base = weights(finished), load_file(finished / "base" / "model.safetensors")
    assert merged.keys() == base.keys()
    changed = {name for name in merged if not (merged[name] == base[name]).all()}
    assert len(changed) == 14  # twelve matrices, weight and bias of the head
    assert all("encoder.layer" in name or "classifier" in name for name in changed)


def test_metrics_count_what_is_trained(finished: Path) -> None:
    figures = metrics(finished)["train"]
    assert figures["trainable_parameters"] == 3_683
    assert figures["total_parameters"] == 43_203
    size = (finished / "adapter" / "adapter_model.safetensors").stat().st_size
    assert figures["adapter_mb"] == round(size / 2**20, 3)


def test_scores_are_those_of_the_merged_model(finished: Path) -> None:
    done = run("evaluate", finished, "--json", cwd=finished)
    expected = {name: value for name, value in metrics(finished)["test"].items() if name != "loss"}
    assert json.loads(done.stdout)["metrics"] == expected


@pytest.mark.slow
def test_adapter_and_merged_model_load_with_label_names_in_plain_libraries(finished: Path) -> None:
    text = "Not worth the money."
    found = loaded_elsewhere(finished, text)
    done = run("predict", finished, "--text", text, cwd=finished)
    ours = json.loads(done.stdout)["scores"]
    assert set(ours) == {"negative", "mixed", "positive"}
    assert found["adapter"] == pytest.approx(ours, abs=1e-5)
    assert found["merged"] == pytest.approx(ours, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_a_run_that_was_stopped_half_way_ends_bit_for_bit_the_same(engine: str, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("model", "adapter", "checkpoints/step-8"):
        shutil.rmtree(folder / name)
    for name in ("metrics.json", "status.json"):
        (folder / name).unlink()
    saved = folder / "recipe.yaml"
    saved.write_text(saved.read_text().replace("engine: trainer", f"engine: {engine}"))
    done = run(*TINY, *LORA, f"train.engine={engine}", f"output_dir={folder}", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "going on from" in done.stderr
    assert same(weights(folder), weights(finished))
    one, two = (load_file(f / "adapter" / "adapter_model.safetensors") for f in (folder, finished))
    assert same(one, two)


@pytest.mark.slow
def test_a_run_does_not_go_on_where_its_base_has_changed(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "model", tmp_path / "base")
    arguments = (*TINY, *LORA, "model.checkpoint=base", "model.tokenizer=null", "model.config={}", "output_dir=run")
    assert run(*arguments, cwd=tmp_path).code == 0
    unfinished = tmp_path / "run"
    for name in ("metrics.json", "status.json"):
        (unfinished / name).unlink()
    changed = load_file(tmp_path / "base" / "model.safetensors")
    changed["classifier.bias"].add_(1)
    save_file(changed, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    done = run(*arguments, cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert "the weights of model.checkpoint have changed since this run began" in done.stderr
    assert (unfinished / "checkpoints" / "step-8").is_dir()


def test_both_engines_give_the_same_run(finished: Path, tmp_path: Path) -> None:
    done = run(*TINY, *LORA, "train.engine=accelerate", "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert same(weights(tmp_path / "run"), weights(finished))


def test_training_can_go_on_from_the_merged_model(finished: Path, tmp_path: Path) -> None:
    done = run(
        "--recipe", "text_cls", f"model.checkpoint={finished}", "data.source=demo:reviews", "lora.method=ia3",
        "train.max_steps=2", "task.max_length=32", "output_dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(finished / "model")


def test_an_adapter_alone_is_no_checkpoint_and_the_merged_model_is_named(finished: Path, tmp_path: Path) -> None:
    done = run(
        "--recipe", "text_cls", f"model.checkpoint={finished / 'adapter'}", "data.source=demo:reviews", cwd=tmp_path
    )
    assert done.code == 2
    assert f"The merged model is {finished / 'model'}" in done.stderr


def test_targets_that_match_nothing_end_the_run_before_it_begins(tmp_path: Path) -> None:
    done = run(*TINY, "lora.targets=[q_proj]", "output_dir=run", cwd=tmp_path)
    assert done.code == 2
    assert "lora.targets q_proj: no layer of this model is called so" in done.stderr
    assert not (tmp_path / "run").exists()


def test_check_says_what_is_trained(tmp_path: Path) -> None:
    done = run("check", *TINY, "lora.method=vera", "--json", cwd=tmp_path)
    plan = json.loads(done.stdout)["plan"]
    assert plan["plan"]["adapters"].startswith("vera rank 8 on 12 layers")
    trainable = {layer["name"]: layer["trainable"] for layer in plan["layers"]}
    assert trainable == {
        "bert.embeddings": False, "bert.encoder.layer.0": True, "bert.encoder.layer.1": True,
        "bert.pooler": False, "classifier": True,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("method", "engine"), [("lora", "trainer"), ("pissa", "accelerate")])
def test_a_real_checkpoint_learns_and_loads_elsewhere(method: str, engine: str, tmp_path: Path) -> None:
    done = run(
        "--recipe", "text_cls", "--demo", f"lora.method={method}", f"train.engine={engine}", "train.max_steps=20",
        "train.eval_every=10", "optim.learning_rate=2e-3", "output_dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    found = loaded_elsewhere(tmp_path / "run", "A delightful evening, and cheap.")
    assert found["adapter"] == pytest.approx(found["merged"], abs=1e-5)
    figures = metrics(tmp_path / "run")["train"]
    assert figures["trainable_parameters"] / figures["total_parameters"] < 0.02
