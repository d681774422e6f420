"""What a push makes of a repository, with the real client and a Hub on the loopback interface."""

import json
import shlex
from pathlib import Path

import pytest

from nlp_finetune.recipe import load
from nlp_finetune.tasks import base
from tests.hub.client import Client, Done
from tests.hub.runs import NOT_PUSHED, PRIVATE_FOLDER
from tests.hub.server import Hub
from tests.hub.store import File

FILES = {
    ".gitattributes", "README.md", "config.json", "metrics.json", "model.safetensors", "recipe.yaml",
    "task.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def push(client: Client, run: Path, *options: str, **environment: str) -> Done:
    return client.run("push", run, "--repo-id", "me/reviews", *options, **environment)


def pushed(client: Client, run: Path, *options: str) -> Done:
    done = push(client, run, *options)
    assert done.code == 0, done.stderr
    return done


def contents(hub: Hub, revision: str = "main") -> dict[str, bytes]:
    repo = hub.repo("me/reviews")
    return {name: hub.store.content(repo, name, revision) for name in repo.files(revision)}


def test_one_commit_holds_the_listed_files_and_its_url_is_printed(hub: Hub, client: Client, run: Path) -> None:
    done = pushed(client, run)
    repo = hub.repo("me/reviews")
    assert set(repo.files("main")) == FILES
    assert len(repo.commits) == 2
    assert done.stdout == f"{hub.url}/me/reviews/commit/{repo.resolve('main')}\n"
    assert contents(hub)["model.safetensors"] == (run / "model/model.safetensors").read_bytes()
    for name in NOT_PUSHED:
        assert name in done.stderr


def test_a_repository_is_private_unless_asked_otherwise(hub: Hub, client: Client, run: Path) -> None:
    pushed(client, run)
    assert hub.repo("me/reviews").private
    assert client.run("push", run, "--repo-id", "me/open", "--public").code == 0
    assert not hub.repo("me/open").private


def test_nothing_goes_into_a_public_repository_that_was_not_said_to_be_one(hub: Hub, client: Client, run: Path) -> None:
    repo = hub.store.create("models", "me/reviews", private=False, author="me")
    done = push(client, run)
    assert done.code == 2
    assert "public" in done.stderr
    assert len(repo.commits) == 1


def test_paths_of_this_machine_are_not_pushed(hub: Hub, client: Client, run: Path) -> None:
    pushed(client, run)
    for name, content in contents(hub).items():
        assert b"/home/somebody" not in content, name
        assert str(run).encode() not in content, name
    assert json.loads(contents(hub)["config.json"])["_name_or_path"] == Path(PRIVATE_FOLDER).name


def test_the_pushed_recipe_loads_and_differs_in_its_paths_alone(
    hub: Hub, client: Client, run: Path, tmp_path: Path
) -> None:
    pushed(client, run)
    (tmp_path / "recipe.yaml").write_bytes(contents(hub)["recipe.yaml"])
    ours, theirs = (
        load(str(folder), task_options=base.options_of, task_names=base.names()).recipe.model_dump()
        for folder in (run, tmp_path)
    )
    assert theirs["model"].pop("checkpoint") == "tiny-bert"
    assert theirs["data"].pop("source") == "reviews.csv"
    assert theirs.pop("output_dir") is None
    del ours["model"]["checkpoint"], ours["data"]["source"], ours["output_dir"]
    assert theirs == ours


def test_a_pushed_card_tells_of_the_repository_and_not_of_the_run_folder(hub: Hub, client: Client, run: Path) -> None:
    (run / "README.md").unlink(missing_ok=True)
    pushed(client, run)
    card = contents(hub)["README.md"].decode()
    assert "| validation (40 rows) | **this model** | **0.7500** (0.6000 to 0.8600) | 0.7000 |" in card
    assert "pipeline_tag: text-classification" in card
    assert 'pipeline("text-classification", model="me/reviews", truncation=True' in card
    assert "base_model:" not in card  # which was a folder
    assert card.startswith("---\n")


def test_the_card_that_training_wrote_is_written_anew_for_the_repository(
    hub: Hub, client: Client, adapted: Path
) -> None:
    local = (adapted / "README.md").read_text(encoding="utf-8")
    assert client.run("push", adapted, "--repo-id", "me/reviews").code == 0
    card = contents(hub)["README.md"].decode()
    assert "adapted/model" in local
    assert "adapted/model" not in card
    assert "library_name: peft" in card
    assert "base_model: them/tiny" in card
    assert "license: mit" in card  # the base's
    assert hub.repo("them/tiny").resolve("main") in card


def test_a_card_that_its_user_edited_is_pushed_as_it_is(hub: Hub, client: Client, run: Path) -> None:
    text = "---\nlicense: mit\n---\n\n# Ours: <b>größer</b>\n"
    (run / "README.md").write_text(text, encoding="utf-8")
    pushed(client, run)
    assert contents(hub)["README.md"].decode() == text


def test_what_the_hub_remarks_about_the_card_is_said(hub: Hub, client: Client, run: Path) -> None:
    (run / "README.md").write_text("# No header\n")
    assert "empty or missing yaml metadata" in pushed(client, run).stderr


def test_the_same_content_makes_no_new_commit_and_sends_nothing(hub: Hub, client: Client, run: Path) -> None:
    first = pushed(client, run, "--json").json
    hub.requests.clear()
    second = pushed(client, run, "--json").json
    assert second == {**first, "new": False}
    assert len(hub.repo("me/reviews").commits) == 2
    assert not hub.asked("PUT", "/") + hub.asked("POST", "/preupload/|/commit/|lfs")


def test_a_later_push_replaces_what_a_push_writes_and_leaves_the_rest(hub: Hub, client: Client, run: Path) -> None:
    pushed(client, run)
    repo = hub.repo("me/reviews")
    added: dict[str, File | None] = {
        name: hub.store.add(b"theirs") for name in ("LICENSE", "model-00001-of-00002.safetensors", "picture.png")
    }
    hub.store.commit(repo, "refs/heads/main", added, title="by hand", author="me")
    (run / "metrics.json").write_text('{"validation": {"accuracy": 0.5}}')
    pushed(client, run)
    assert set(repo.files("main")) == FILES | {"LICENSE", "picture.png"}
    assert contents(hub)["metrics.json"] == b'{"validation": {"accuracy": 0.5}}'
    assert len(repo.commits) == 4


def test_a_branch_is_made_where_it_is_missing_and_main_stays(hub: Hub, client: Client, run: Path) -> None:
    answer = pushed(client, run, "--revision", "trial/one", "--json").json
    repo = hub.repo("me/reviews")
    assert answer["revision"] == "trial/one"
    assert repo.resolve("trial/one") == answer["commit"]
    assert set(repo.files("main")) == {".gitattributes"}
    pushed(client, run, "--revision", "trial/one")
    assert len(repo.commits) == 2


def test_a_pull_request_is_opened_once_for_the_same_content(hub: Hub, client: Client, run: Path) -> None:
    first = pushed(client, run, "--create-pr", "--json").json
    second = pushed(client, run, "--create-pr", "--json").json
    repo = hub.repo("me/reviews")
    assert first["pull_request"] == f"{hub.url}/me/reviews/discussions/1"
    assert second == {**first, "new": False}
    assert set(repo.files("refs/pr/1")) == FILES
    assert set(repo.files("main")) == {".gitattributes"}


def test_a_tag_names_the_pushed_commit_and_is_never_moved(hub: Hub, client: Client, run: Path) -> None:
    commit = pushed(client, run, "--tag", "v1", "--json").json["commit"]
    repo = hub.repo("me/reviews")
    assert repo.refs["refs/tags/v1"] == commit
    pushed(client, run, "--tag", "v1")
    (run / "metrics.json").write_text('{"validation": {"accuracy": 0.5}}')
    done = push(client, run, "--tag", "v1")
    assert done.code == 2
    assert "tag v1 names commit" in done.stderr
    assert repo.refs["refs/tags/v1"] == repo.resolve("main") == commit


def test_the_message_of_the_commit_is_the_users(hub: Hub, client: Client, run: Path) -> None:
    pushed(client, run, "--message", "better & smaller")
    repo = hub.repo("me/reviews")
    assert repo.commits[repo.resolve("main") or ""].title == "better & smaller"


def test_a_pushed_run_is_pushed_on_by_its_id(hub: Hub, client: Client, run: Path, cache: Path) -> None:
    pushed(client, run)
    assert client.run("push", "me/reviews", "--repo-id", "me/copy").code == 0
    assert hub.repo("me/copy").files("main") == hub.repo("me/reviews").files("main")


def unfinished(run: Path) -> None:
    (run / "metrics.json").unlink()


def without_weights(run: Path) -> None:
    (run / "model/model.safetensors").rename(run / "model/model.bin")


def broken_card(run: Path) -> None:
    (run / "README.md").write_text("---\nlicense: [mit\n---\n")


def refused_card(run: Path) -> None:
    (run / "README.md").write_text("---\nlicense: {a: 1}\n---\n")


def as_it_is(run: Path) -> None: ...


REFUSED = {
    "no token": (as_it_is, {"HF_TOKEN": ""}, [], "no token. Run `hf auth login`"),
    "a wrong token": (as_it_is, {"HF_TOKEN": "hf_wrong"}, [], "does not accept the token"),
    "a token that reads": (as_it_is, {"HF_TOKEN": "READ"}, [], "this token may not do that"),
    "a stranger's name": (as_it_is, {}, ["--repo-id", "them/reviews"], "under the namespace them"),
    "no id": (as_it_is, {}, ["--repo-id", "reviews"], "write OWNER/NAME"),
    "a commit as branch": (as_it_is, {}, ["--revision", "a" * 40], "a commit can't be pushed to"),
    "a branch with spaces": (as_it_is, {}, ["--revision", "a b"], "not a name that git takes"),
    "a pull request with a tag": (as_it_is, {}, ["--create-pr", "--tag", "v1"], "once the pull request is"),
    "a pull request to a branch": (as_it_is, {}, ["--create-pr", "--revision", "x"], "goes to main"),
    "an unfinished run": (unfinished, {}, [], "this run is not finished"),
    "a run without safetensors": (without_weights, {}, [], "no weights in safetensors"),
    "a card that is no YAML": (broken_card, {}, [], "its YAML header can't be read"),
    "a card that the Hub refuses": (refused_card, {}, [], '"license" must be a string'),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_is_one_message_and_nothing_is_pushed(what: str, hub: Hub, client: Client, run: Path) -> None:
    spoil, environment, options, message = REFUSED[what]
    spoil(run)
    token = {"READ": hub.read_token}.get(environment.get("HF_TOKEN", ""))
    done = push(client, run, *options, **(environment | ({"HF_TOKEN": token} if token else {})))
    assert done.code == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert not hub.asked("POST", "/commit/")
    assert "Traceback" not in done.stderr


def test_an_error_names_the_run_and_the_command_that_pushes_it_again(hub: Hub, client: Client, run: Path) -> None:
    options = ["--public", "--tag", "v1", "--message", "it's done"]
    refused = push(client, run, *options, HF_TOKEN="hf_wrong").stderr
    assert f"The run is kept in {run}. To push it again:" in refused
    words = shlex.split(refused.strip().splitlines()[-1])
    assert words[:4] == ["python", "run.py", "push", str(run)]
    again = client.run(*words[2:])
    assert again.code == 0
    repo = hub.repo("me/reviews")
    assert repo.commits[repo.refs["refs/tags/v1"]].title == "it's done"


def test_a_file_with_the_token_in_it_is_refused(hub: Hub, client: Client, run: Path) -> None:
    (run / "README.md").write_text(f"---\nlicense: mit\n---\nlogin with {hub.token}\n")
    done = push(client, run)
    assert done.code == 2
    assert "README.md holds a Hub token" in done.stderr
    assert hub.token not in done.stderr
    assert not hub.requests


AT_DEBUG_LEVEL = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
logging.getLogger("huggingface_hub").setLevel(logging.DEBUG)
from huggingface_hub import constants
constants.HF_DEBUG = True
from nlp_finetune.cli import main
sys.argv = ["run.py"]
for words in (["push", {run!r}, "--repo-id", "me/reviews", "--debug"],
              ["predict", "me/reviews", "--text", "good soup", "--debug"]):
    assert main(words) == 0
"""


def test_the_token_is_nowhere_in_what_is_printed_pushed_cached_or_written(
    hub: Hub, client: Client, run: Path, cache: Path
) -> None:
    done = client.python(AT_DEBUG_LEVEL.format(run=str(run)))
    assert done.code == 0, done.stderr
    assert "DEBUG" in done.stderr
    assert hub.asked("POST", "/commit/")[0].token == hub.token
    stored = hub.asked("PUT", "/_objects/") + hub.asked("GET", "/_objects/")
    assert [request.token for request in stored] == [None, None]
    assert hub.token not in done.stdout + done.stderr
    for folder in (cache, run, hub.store.root):
        for file in (f for f in folder.rglob("*") if f.is_file()):
            assert hub.token.encode() not in file.read_bytes(), file
