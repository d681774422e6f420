"""Image classification through the command line: small ResNets from nothing, on folders of small images."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.command_line import Done, run

MODEL = (
    "--recipe", "image_cls", "model.checkpoint=scratch:resnet18",
    "model.config={depths: [1, 1, 1, 1], hidden_sizes: [8, 8, 16, 16], embedding_size: 8}",
)  # fmt: skip
SMALL = (
    "task.size=32", "train.threads=1", "train.workers=0", "train.batch_size=8", "optim.learning_rate=0.05",
    "augment.crop=[0.5, 1.0]",
)  # fmt: skip
TINY = (*MODEL, "data.source=pictures", *SMALL, "train.max_steps=6", "train.eval_every=3")
CLASSES = ("blue", "green", "red")


def draw(folder: Path, *, each: int, seed: int) -> None:
    """Noise tinged with a class's colour, in class folders.

    The size leaves no odd pixel to cut off, where transformers and torchvision round differently.
    """
    random = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = random.integers(0, 120, (36, 42, 3), dtype=np.uint8)
            pixels[..., ("red", "green", "blue").index(name)] += 120
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    draw(folder / "pictures" / "train", each=12, seed=0)
    draw(folder / "pictures" / "val", each=4, seed=1)
    draw(folder / "pictures" / "test", each=4, seed=2)
    return folder


def trained(place: Path, name: str, *arguments: str) -> Path:
    done = run(*TINY, f"output_dir={name}", *arguments, cwd=place)
    assert done.code == 0, done.stderr
    return place / name


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    return trained(place, "run")


def weights(folder: Path, name: str = "model") -> dict[str, torch.Tensor]:
    (file,) = (folder / name).glob("*.safetensors")
    return load_file(file)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def predict(place: Path, folder: Path, *arguments: str) -> list[dict]:
    done = run("predict", folder, *arguments, "--json", cwd=place)
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_has_scores_rivals_and_a_confusion_matrix(place: Path, finished: Path) -> None:
    found = metrics(finished)
    assert {"accuracy", "macro_f1", "mcc", "loss", "accuracy_ci95"} <= found["test"].keys()
    assert "top5" not in found["test"]
    assert found["baselines"]["test"].keys() == {"majority", "nearest_mean", "pixels_logistic"}
    assert found["baselines"]["test"]["pixels_logistic"]["accuracy"] > 0.9
    done = run("evaluate", finished, "--json", cwd=place)
    shown = json.loads(done.stdout)
    assert shown["metrics"]["accuracy"] == pytest.approx(found["test"]["accuracy"])
    assert np.array(shown["confusion"]["matrix"]).sum() == 12


@pytest.mark.parametrize("change", ["train.engine=accelerate", pytest.param("train.workers=2", marks=pytest.mark.slow)])
def test_neither_engine_nor_workers_change_the_run(change: str, place: Path, finished: Path) -> None:
    assert same(weights(trained(place, change.partition("=")[2], change)), weights(finished))


def test_the_layout_in_memory_changes_no_more_than_rounding(place: Path, finished: Path, tmp_path: Path) -> None:
    done = run(*TINY, "train.channels_last=off", f"output_dir={tmp_path / 'run'}", cwd=place)
    assert (done.code, "channels last" in done.stderr) == (0, False)
    usual, here = weights(tmp_path / "run"), weights(finished)
    assert all((usual[name].float() - here[name].float()).abs().max() < 1e-4 for name in here)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_a_run_goes_on_bit_for_bit_with_workers(engine: str, place: Path, tmp_path: Path) -> None:
    whole = trained(place, str(tmp_path / "whole"), f"train.engine={engine}", "train.workers=1", "train.save_total=9")
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    for name in ("model", "checkpoints/step-6"):
        shutil.rmtree(cut / name)
    # A finished run has no best weights left over; after step 3 they were those of its checkpoint.
    shutil.copytree(cut / "checkpoints" / "step-3", cut / "checkpoints" / "best-3")
    for name in ("metrics.json", "status.json"):
        (cut / name).unlink()
    done = run(*TINY, f"output_dir={cut}", f"train.engine={engine}", "train.workers=1", "train.save_total=9", cwd=place)
    assert done.code == 0, done.stderr
    assert "going on from" in done.stderr
    assert same(weights(cut), weights(whole))


def test_one_image_alone_cannot_train_batchnorm(place: Path, tmp_path: Path) -> None:
    done = run(*TINY, "train.micro_batch_size=1", f"output_dir={tmp_path / 'run'}", cwd=place)
    assert done.code == 1
    assert "set train.micro_batch_size to 2 or more" in done.stderr


@pytest.mark.slow
def test_two_processes_measure_the_statistics_that_are_saved(place: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port"]
    command += [str(29500 + os.getpid() % 2000), str(Path(__file__).parents[2] / "run.py"), *TINY]
    done = subprocess.run(
        [*command, f"output_dir={tmp_path / 'run'}", "train.metric=loss"],
        capture_output=True, text=True, cwd=place, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    seen = {line["step"]: line["validation"]["loss"] for line in lines if "validation" in line}
    best = metrics(tmp_path / "run")["best"]
    assert seen[best["step"]] == pytest.approx(metrics(tmp_path / "run")["validation"]["loss"], rel=1e-5)
    assert "strides" not in done.stderr  # DDP says so where gradients do not lie as its buffers do


def test_predict_takes_images_lists_and_folders(place: Path, finished: Path) -> None:
    file = "pictures/test/red/0.png"
    (one,) = predict(place, finished, "--image", file)
    assert one["scores"].keys() == set(CLASSES)
    assert sum(one["scores"].values()) == pytest.approx(1)
    (place / "list.csv").write_text(f"path,note\n{file},x\npictures/test/blue/1.png,y\n")
    done = run("predict", finished, "--input", "list.csv", "--output", "out.csv", cwd=place)
    assert done.code == 0, done.stderr
    with (place / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["note"] for row in rows] == ["x", "y"]
    assert rows[0]["path"] == file
    assert float(rows[0]["score"]) == pytest.approx(one["score"], abs=1e-5)
    assert len(predict(place, finished, "--input", "pictures/test")) == 12


def test_predict_leaves_out_what_is_no_image_and_refuses_texts(place: Path, finished: Path) -> None:
    (place / "page.jpg").write_text("<html>gone</html>")
    (place / "mixed.csv").write_text("image\npage.jpg\npictures/test/red/0.png\n")
    done = run("predict", finished, "--input", "mixed.csv", "--json", cwd=place)
    assert len(json.loads(done.stdout)) == 1
    assert "row 1 is left out" in done.stderr
    assert "an HTML page" in done.stderr
    done = run("predict", finished, "--text", "hello", cwd=place)
    assert (done.code, "takes images" in done.stderr) == (2, True)


FRESH = """
import json, sys
sys.modules["torchvision"] = None
from transformers import pipeline
found = pipeline("image-classification", sys.argv[1])(sys.argv[2], top_k=9)
assert not [name for name in sys.modules if name.startswith("nlp_finetune")]
print(json.dumps({one["label"]: one["score"] for one in found}))
"""


@pytest.mark.slow
def test_the_model_loads_in_a_plain_pipeline_without_torchvision(place: Path, finished: Path, tmp_path: Path) -> None:
    file = place / "pictures/test/green/2.png"
    done = subprocess.run(
        [sys.executable, "-c", FRESH, finished / "model", file],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    (ours,) = predict(place, finished, "--image", str(file))
    assert json.loads(done.stdout) == pytest.approx(ours["scores"], abs=1e-6)


@pytest.mark.slow
def test_a_stem_for_small_images_brings_its_code_along(place: Path, tmp_path: Path) -> None:
    small = "model.checkpoint=scratch:resnet18_small_stem"
    folder = trained(place, str(tmp_path / "small"), small, "train.max_steps=2")
    assert (folder / "model" / "resnet_small_stem.py").is_file()
    assert weights(folder)["resnet.embedder.embedder.convolution.weight"].shape == (8, 3, 3, 3)
    file = place / "pictures/test/green/2.png"
    code = FRESH.replace("sys.argv[1])", "sys.argv[1], trust_remote_code=True)")
    done = subprocess.run(
        [sys.executable, "-c", code, folder / "model", file], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
    )  # fmt: skip
    (ours,) = predict(place, folder, "--image", str(file))
    assert json.loads(done.stdout) == pytest.approx(ours["scores"], abs=1e-6)


TIMM = """
import json, sys, torch, timm, torchvision
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_model_data_config
folder, file = sys.argv[1:]
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
other = torchvision.models.resnet18(num_classes=3).eval()
other.load_state_dict(load_file(f"{folder}/model.safetensors"))
image = create_transform(**resolve_model_data_config(model))(Image.open(file).convert("RGB"))[None]
names = model.pretrained_cfg["label_names"]
with torch.inference_mode():
    for found in (model(image), other(image)):
        print(json.dumps(dict(zip(names, found.softmax(-1)[0].tolist()))))
"""


@pytest.mark.slow
def test_a_model_in_timms_format_loads_in_timm_and_torchvision(place: Path) -> None:
    arguments = ("model.checkpoint=scratch:resnet18", "model.config={}", "model.save_format=timm")
    folder = trained(place, "timm", *arguments, "train.max_steps=2")
    file = place / "pictures/test/green/2.png"
    code = "import nlp_finetune.torchvision_guard\n" + TIMM
    done = subprocess.run(
        [sys.executable, "-c", code, folder / "model", file], capture_output=True, text=True, check=True
    )
    (ours,) = predict(place, folder, "--image", str(file))
    for line in done.stdout.splitlines():
        assert json.loads(line) == pytest.approx(ours["scores"], abs=1e-6)
    again = run("evaluate", folder, "--json", cwd=place)
    assert json.loads(again.stdout)["metrics"]["accuracy"] == metrics(folder)["test"]["accuracy"]


@pytest.mark.slow
def test_a_resnext_is_trained_and_saved_in_timms_format(place: Path, tmp_path: Path) -> None:
    arguments = ("model.checkpoint=scratch:resnext50_32x4d", "model.config={}", "train.max_steps=1")
    folder = trained(place, str(tmp_path / "resnext"), *arguments)
    config = json.loads((folder / "model" / "config.json").read_text())
    assert (config["architecture"], config["label_names"]) == ("resnext50_32x4d", list(CLASSES))
    code = "import nlp_finetune.torchvision_guard\n" + TIMM.replace("resnet18(", "resnext50_32x4d(")
    file = place / "pictures/test/green/2.png"
    done = subprocess.run(
        [sys.executable, "-c", code, folder / "model", file], capture_output=True, text=True, check=True
    )
    (ours,) = predict(place, folder, "--image", str(file))
    for line in done.stdout.splitlines():
        assert json.loads(line) == pytest.approx(ours["scores"], abs=1e-6)


ADAPTER = """
import json, sys
sys.modules["torchvision"] = None
import torch
from PIL import Image
from peft import PeftModel
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
folder, file = sys.argv[1:]
peft = json.load(open(f"{folder}/adapter/adapter_config.json"))
config = AutoConfig.from_pretrained(f"{folder}/adapter/base_config")
base = AutoModelForImageClassification.from_pretrained(
    peft["base_model_name_or_path"], config=config, ignore_mismatched_sizes=True
)
adapted = PeftModel.from_pretrained(base, f"{folder}/adapter").eval()
merged = AutoModelForImageClassification.from_pretrained(f"{folder}/model").eval()
batch = AutoImageProcessor.from_pretrained(f"{folder}/model")(Image.open(file), return_tensors="pt")
with torch.inference_mode():
    print(json.dumps([model(**batch).logits[0].tolist() for model in (adapted, merged)]))
assert merged.config.id2label == {0: "blue", 1: "green", 2: "red"}
"""


@pytest.mark.parametrize("method", ["lora", pytest.param("dora", marks=pytest.mark.slow)])
def test_an_adapter_with_its_base_is_the_merged_model(method: str, place: Path, tmp_path: Path) -> None:
    folder = trained(place, str(tmp_path / "run"), f"lora.method={method}", "lora.rank=4")
    adapter = weights(folder, "adapter")
    assert any("lora_A" in name and "convolution" in name for name in adapter)
    assert any("running_mean" in name for name in adapter)
    assert any("classifier" in name for name in adapter)
    file = place / "pictures/test/green/2.png"
    done = subprocess.run([sys.executable, "-c", ADAPTER, folder, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    adapted, merged = json.loads(done.stdout)
    assert adapted == pytest.approx(merged, abs=1e-5)
    (ours,) = predict(place, folder, "--image", str(file))
    assert torch.tensor(merged).softmax(-1).tolist() == pytest.approx([ours["scores"][n] for n in CLASSES], abs=1e-5)


@pytest.mark.slow
def test_training_goes_on_from_an_earlier_run_and_its_labels(place: Path, finished: Path, tmp_path: Path) -> None:
    done = run(
        "--recipe", "image_cls", f"model.checkpoint={finished}", "data.source=pictures", *SMALL, "train.max_steps=1",
        f"output_dir={tmp_path / 'more'}", cwd=place,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert "head: the checkpoint has these 3 labels, kept as they are" in done.stderr or "backbone" in done.stderr


def check(place: Path, *arguments: str) -> Done:
    return run("check", *TINY, *arguments, cwd=place)


def test_check_says_sizes_transforms_and_that_rows_are_coupled(place: Path) -> None:
    done = check(place, "--json")
    found = json.loads(done.stdout)
    assert found["data"]["details"]["Images"]["train"] == "shorter side 36 pixels; 36 PNG RGB"
    assert found["data"]["details"]["Augmentation"]["by"] == "crop [0.5, 1.0], horizontal_flip 0.5"
    assert "BatchNorm" in found["plan"]["plan"]["coupled rows"]
    assert found["data"]["labels"]["train"] == dict.fromkeys(CLASSES, 12)
    assert found["data"]["lengths"] == {}
    assert found["plan"]["memory_mb"]["activations"] > 0.5


def test_check_finds_the_same_file_in_two_splits(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "pictures", tmp_path / "pictures")
    shutil.copy(tmp_path / "pictures/test/red/1.png", tmp_path / "pictures/train/blue/copy.png")
    done = check(tmp_path)
    assert "test: 1 of 12 rows (8.3 %) are also in train, byte for byte" in done.stdout
    assert "only with another label" in done.stdout


def test_unusable_images_stop_the_run_or_are_left_out(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "pictures", tmp_path / "pictures")
    whole = (tmp_path / "pictures/train/red/0.png").read_bytes()
    (tmp_path / "pictures/train/red/cut.png").write_bytes(whole[: len(whole) // 2])
    done = check(tmp_path)
    assert done.code == 2
    assert "cut.png: damaged or cut off" in done.stderr
    assert "task.on_corrupt=skip" in done.stderr
    done = check(tmp_path, "task.on_corrupt=skip", "--json")
    assert json.loads(done.stdout)["data"]["splits"]["train"] == 36
    assert "1 of 37 images can't be used and are left out" in done.stderr
