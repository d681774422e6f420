"""Python code that comes with a checkpoint runs where the recipe says so, and for a run where its user says so."""

import json
from pathlib import Path

import pytest

from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.runs.staging import stage
from tests.command_line import run

CONFIGURATION = """
from pathlib import Path
from transformers import BertConfig

Path("code-has-run").touch()


class StrangeConfig(BertConfig):
    model_type = "strange"
"""
MODELING = """
from transformers import BertForSequenceClassification

from .configuration_strange import StrangeConfig


class StrangeForSequenceClassification(BertForSequenceClassification):
    config_class = StrangeConfig
"""
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "food", "was", "good", "bad", "and", "a", "it", "not"]


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model type that transformers has not, with its own code."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder = tmp_path_factory.mktemp("strange")
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)
    content = json.loads((folder / "config.json").read_text())
    auto_map = {
        "AutoConfig": "configuration_strange.StrangeConfig",
        "AutoModelForSequenceClassification": "modeling_strange.StrangeForSequenceClassification",
    }
    (folder / "config.json").write_text(json.dumps(content | {"model_type": "strange", "auto_map": auto_map}))
    (folder / "configuration_strange.py").write_text(CONFIGURATION)
    (folder / "modeling_strange.py").write_text(MODELING)
    return folder


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that the code makes where it runs."""
    return tmp_path / "code-has-run"


def recipe(strange: Path) -> list[str]:
    return [
        "--recipe", "text_cls", f"model.checkpoint={strange}", "data.source=demo:reviews", "task.max_length=32",
        "train.max_steps=2", "train.batch_size=8", "train.threads=1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(strange: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of it that was allowed to run its code, and what it said."""
    scratch = tmp_path_factory.mktemp("trained")
    done = run(*recipe(strange), "model.trust_remote_code=true", "output_dir=run", cwd=scratch)
    assert done.code == 0, done.stderr
    return scratch / "run", done.stderr


@pytest.mark.parametrize("verb", ["train", "check"])
def test_a_checkpoints_own_code_is_refused_by_default(verb: str, strange: Path, mark: Path, tmp_path: Path) -> None:
    done = run(verb, *recipe(strange), "output_dir=run", cwd=tmp_path)
    assert done.code == 2
    assert "model.trust_remote_code=true" in done.stderr
    assert "Traceback" not in done.stderr
    assert not mark.exists()
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_trusts_it_runs_it_and_log_card_and_folder_show_it(trained: tuple[Path, str]) -> None:
    folder, said = trained
    assert (folder.parent / "code-has-run").exists()
    assert "its own code is run, as model.trust_remote_code says" in said
    assert "custom_code" in (folder / "README.md").read_text()
    assert {file.name for file in (folder / "model").glob("*.py")} == {
        "configuration_strange.py", "modeling_strange.py",
    }  # fmt: skip


WORDS_OF = {
    "predict": ["--text", "good food", "--json"],
    "evaluate": ["--split", "test", "--json"],
}


@pytest.mark.parametrize("verb", WORDS_OF)
def test_the_code_of_a_run_runs_only_where_its_user_says_so(
    verb: str, trained: tuple[Path, str], mark: Path, tmp_path: Path
) -> None:
    refused = run(verb, trained[0], *WORDS_OF[verb], cwd=tmp_path)
    assert refused.code == 2
    assert "--trust-remote-code" in refused.stderr
    assert not mark.exists()
    allowed = run(verb, trained[0], *WORDS_OF[verb], "--trust-remote-code", cwd=tmp_path)
    assert allowed.code == 0, allowed.stderr
    assert json.loads(allowed.stdout)
    assert mark.exists()


def test_code_is_pushed_with_a_run_that_may_run_it_and_with_no_other(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder = RunFolder(trained[0])
    names = stage(folder, tmp_path / "one", repo_id="me/strange").names
    assert {"configuration_strange.py", "modeling_strange.py"} <= set(names)
    before = folder.recipe.read_text()
    folder.recipe.write_text(before.replace("trust_remote_code: true", "trust_remote_code: false"))
    try:
        other = stage(folder, tmp_path / "two", repo_id="me/strange")
    finally:
        folder.recipe.write_text(before)
    assert not [name for name in other.names if name.endswith(".py")]
    assert "modeling_strange.py" in other.left_out
