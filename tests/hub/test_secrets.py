"""A token is used and never kept: not in what a run prints, writes, caches or pushes, at any level of logging."""

from pathlib import Path

import pytest

from nlp_finetune.runs.staging import CARD, is_managed
from tests.hub.client import Client
from tests.hub.server import Hub

AT_DEBUG_LEVEL = """
import logging, os, sys
logging.basicConfig(level=logging.DEBUG)
for name in ("huggingface_hub", "transformers", "accelerate", "nlp_finetune"):
    logging.getLogger(name).setLevel(logging.DEBUG)
from huggingface_hub import constants
constants.HF_DEBUG = True
from nlp_finetune.cli import main
sys.argv = ["run.py"]
code = main({words!r})
assert code == 0, code
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_training_that_pushes_leaves_the_token_nowhere(
    engine: str, hub: Hub, client: Client, base: str, cache: Path, tmp_path: Path
) -> None:
    words = [
        "--recipe", "text_cls", f"model.checkpoint={base}", "data.source=demo:reviews", "lora.rank=4",
        "task.max_length=32", "train.max_steps=4", "train.eval_every=2", "train.save_every=2", "train.batch_size=16",
        "train.threads=1", f"train.engine={engine}", "hub.repo_id=me/secret", "--debug",
        f"output_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    done = client.python(AT_DEBUG_LEVEL.format(words=words))
    assert done.code == 0, done.stderr
    assert "DEBUG" in done.stderr
    assert hub.asked("POST", "/commit/")[0].token == hub.token
    assert hub.token not in done.stdout + done.stderr
    seen = 0
    for folder in (tmp_path / "run", cache, hub.store.root):
        for file in (found for found in folder.rglob("*") if found.is_file()):
            assert hub.token.encode() not in file.read_bytes(), file
            seen += 1
    assert seen > 20
    for request in hub.requests:
        assert hub.token.encode() not in request.body, request.path
        assert hub.token not in request.path


def test_training_pushes_files_on_the_list_alone_and_the_users_own_card(
    hub: Hub, client: Client, base: str, tmp_path: Path
) -> None:
    (client.folder / "own.md").write_text("---\nlicense: cc0-1.0\n---\n\n# Ours\n\nHello.\n")
    done = client.run(
        "--recipe", "text_cls", f"model.checkpoint={base}", "data.source=demo:reviews", "task.max_length=32",
        "train.max_steps=1", "train.batch_size=16", "train.threads=1", "hub.repo_id=me/whole", "hub.card=own.md",
        f"output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    repo = hub.repo("me/whole")
    names = set(repo.files("main")) - {".gitattributes"}
    assert all(is_managed(name) for name in names)
    assert {"model.safetensors", "task.json", "recipe.yaml", "metrics.json", CARD} <= names
    card = hub.store.content(repo, CARD).decode()
    assert "\n# Ours\n\nHello.\n" in card
    assert "license: cc0-1.0" in card
    assert f"pushed: {hub.url}/me/whole/commit/{repo.resolve('main')}" in done.stderr


REFUSED = {
    "a wrong token": ({"HF_TOKEN": "hf_wrong"}, [], "does not accept the token"),
    "a stranger's repository": ({}, ["hub.repo_id=them/x"], "under the namespace them"),
    "a card that is not there": ({}, ["hub.card=nowhere.md"], "hub.card nowhere.md: can't be read"),
    "a card that the Hub refuses": ({}, ["hub.card=refused.md"], '"license" must be a string'),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_push_that_cannot_work_stops_the_training_before_it_begins(
    what: str, hub: Hub, client: Client, base: str, tmp_path: Path
) -> None:
    environment, words, message = REFUSED[what]
    (client.folder / "refused.md").write_text("---\nlicense: {a: 1}\n---\n\n# Ours\n")
    done = client.run(
        "--recipe", "text_cls", f"model.checkpoint={base}", "data.source=demo:reviews", "hub.repo_id=me/x", *words,
        f"output_dir={tmp_path / 'run'}", **environment,
    )  # fmt: skip
    assert done.code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert not hub.asked("POST", "/commit/")


def test_a_push_that_fails_after_training_keeps_the_run_and_prints_the_command(
    hub: Hub, client: Client, base: str, tmp_path: Path
) -> None:
    hub.fail("POST", "/commit/", 500, times=1000)
    done = client.run(
        "--recipe", "text_cls", f"model.checkpoint={base}", "data.source=demo:reviews", "task.max_length=32",
        "train.max_steps=1", "train.batch_size=16", "train.threads=1", "hub.repo_id=me/x",
        f"output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.code == 1
    command = done.stderr.strip().splitlines()[-1].strip()
    assert command.endswith("--repo-id me/x")
    hub.faults.clear()
    assert command.startswith("python run.py push")
    assert client.run(*command.split()[2:]).code == 0
    assert len(hub.repo("me/x").commits) == 2
