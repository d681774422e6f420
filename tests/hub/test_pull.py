"""A RUN that is on the Hub: fetched whole, verified, pinned, and the same run as before."""

import json
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hub.client import Client, Done
from tests.hub.server import Hub, Kind

TEXTS = ("good soup", "the film was not good", "so cold")


def predict(client: Client, run: object, **environment: str) -> Done:
    words = [word for text in TEXTS for word in ("--text", text)][:2]
    return client.run("predict", run, "--json", *words, **environment)


def answers(client: Client, run: object) -> Any:
    done = predict(client, run)
    assert done.code == 0, done.stderr
    return done.json


@pytest.fixture
def commit(hub: Hub, client: Client, run: Path, cache: Path) -> str:
    """The run as a repository, the client's cache empty; the commit."""
    done = client.run("push", run, "--repo-id", "me/reviews", "--json")
    assert done.code == 0, done.stderr
    hub.requests.clear()
    return str(done.json["commit"])


def test_a_pulled_run_predicts_what_the_run_does_and_says_its_commit(
    commit: str, client: Client, run: Path, cache: Path
) -> None:
    done = predict(client, "me/reviews")
    assert done.json == answers(client, run)
    assert f"me/reviews: commit {commit}" in done.stderr


def test_the_second_time_nothing_is_downloaded(commit: str, hub: Hub, client: Client) -> None:
    first = answers(client, "me/reviews")
    hub.requests.clear()
    assert answers(client, "me/reviews") == first
    assert not hub.asked("GET", "/resolve/|/_objects/")


def test_only_what_a_push_writes_is_downloaded(commit: str, hub: Hub, client: Client, cache: Path) -> None:
    added = {name: hub.store.add(b"theirs") for name in ("training_args.bin", "pytorch_model.bin", "evil.py", "a/b")}
    hub.store.commit(hub.repo("me/reviews"), "refs/heads/main", added, title="by hand", author="me")
    answers(client, "me/reviews")
    assert not [file for file in cache.rglob("*") if file.name in added]


def test_a_revision_is_named_behind_an_at_sign(commit: str, hub: Hub, client: Client, run: Path) -> None:
    before = answers(client, run)
    spoiled = {"task.json": hub.store.add(b"{}")}
    hub.store.commit(hub.repo("me/reviews"), "refs/heads/main", spoiled, title="worse", author="me")
    assert predict(client, "me/reviews").code == 2
    assert answers(client, f"me/reviews@{commit}") == before
    done = predict(client, "me/reviews@v9")
    assert done.code == 2
    assert "this revision of it is not" in done.stderr


def test_a_download_of_the_repository_is_a_run_too(
    commit: str, hub: Hub, client: Client, run: Path, tmp_path: Path
) -> None:
    repo = hub.repo("me/reviews")
    for name in repo.files("main"):
        (tmp_path / name).write_bytes(hub.store.content(repo, name))
    hub.requests.clear()
    assert answers(client, tmp_path) == answers(client, run)
    assert not hub.requests


LOAD = """
from nlp_finetune.models.checkpoint import resolve
from nlp_finetune.models.loading import load_config, load_model
checkpoint = resolve("me/reviews")
config = load_config(checkpoint, overrides={}, edits={})
load_model(checkpoint, auto_class="AutoModelForSequenceClassification", config=config, tokenizer=None,
           head_init="default", dropout=None, activation=None, seed=1, say=print)
"""


def test_training_goes_on_from_a_pushed_run(commit: str, client: Client) -> None:
    done = client.python(LOAD)
    assert done.code == 0, done.stderr
    assert "backbone 100 % loaded" in done.stdout


PASSING: dict[str, tuple[str, str, Kind]] = {
    "503 to the first question": ("GET", "/api/models/me/reviews", 503),
    "503 to the list of files": ("GET", "/tree/", 503),
    "503 to a small file": ("GET", "/resolve/", 503),
    "a small file cut": ("GET", "/resolve/", "short"),
    "503 to the weights": ("GET", "/_objects/", 503),
    "weights cut": ("GET", "/_objects/", "short"),
    "weights cut with a reset": ("GET", "/_objects/", "reset"),
    "a small file cut with a reset": ("GET", "/resolve/", "reset"),
    "429 to the weights": ("GET", "/_objects/", 429),
    "500 to the first question": ("GET", "/api/models/me/reviews", 500),
    "a wrong byte in a small file": ("GET", "/resolve/.*/task.json", "flip"),
}


@pytest.mark.parametrize("what", PASSING)
def test_what_passes_is_tried_again(what: str, commit: str, hub: Hub, client: Client, run: Path) -> None:
    method, path, kind = PASSING[what]
    fault = hub.fail(method, path, kind)
    assert answers(client, "me/reviews") == answers(client, run)
    assert fault.times == 0


WITH_SHORT_PATIENCE = """
from huggingface_hub import constants
constants.HF_HUB_DOWNLOAD_TIMEOUT = 1
from nlp_finetune.cli import main
assert main(["predict", "me/reviews", "--json", "--text", "good soup"]) == 0
"""


def test_a_hub_that_falls_silent_is_asked_again(commit: str, hub: Hub, client: Client, run: Path) -> None:
    silence = hub.fail("GET", "/_objects/", lambda: time.sleep(3))
    done = client.python(WITH_SHORT_PATIENCE)
    assert done.code == 0, done.stderr
    assert silence.times == 0
    assert done.json == answers(client, run)


def test_a_kill_in_the_middle_of_a_download_leaves_nothing_that_is_used(
    commit: str, hub: Hub, client: Client, run: Path
) -> None:
    hub.fail("GET", "/_objects/", client.kill)
    assert predict(client, "me/reviews").code == -9
    hub.requests.clear()
    assert answers(client, "me/reviews") == answers(client, run)
    assert hub.asked("GET", "/_objects/")


def test_what_lasts_is_one_message_and_no_answer(commit: str, hub: Hub, client: Client) -> None:
    hub.fail("GET", "/_objects/", "reset", times=1000)
    done = predict(client, "me/reviews")
    assert done.code in (1, 2)
    assert done.stdout == ""
    assert "broke 3 times" in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_with_a_wrong_byte_are_never_used_nor_kept(commit: str, hub: Hub, client: Client, run: Path) -> None:
    hub.fail("GET", "/_objects/", "flip")
    done = predict(client, "me/reviews")
    assert done.code != 0
    assert done.stdout == ""
    assert "damaged" in done.stderr
    assert answers(client, "me/reviews") == answers(client, run)


def test_a_small_file_that_always_arrives_damaged_is_an_error(commit: str, hub: Hub, client: Client) -> None:
    hub.fail("GET", "/resolve/.*/task.json", "flip", times=1000)
    done = predict(client, "me/reviews")
    assert done.code == 1
    assert "task.json arrived damaged" in done.stderr
    assert done.stdout == ""


def test_the_cached_copy_serves_while_the_hub_is_down(commit: str, hub: Hub, client: Client) -> None:
    before = answers(client, "me/reviews")
    hub.fail("GET", "/", 503, times=1000)
    hub.fail("HEAD", "/", 503, times=1000)
    done = predict(client, "me/reviews")
    assert done.json == before
    assert f"the cached copy serves, commit {commit}" in done.stderr


def test_a_hub_that_is_down_and_an_empty_cache_are_one_message(commit: str, hub: Hub, client: Client) -> None:
    hub.fail("GET", "/", 503, times=1000)
    done = predict(client, "me/reviews")
    assert done.code == 2
    assert "the Hub can't be reached" in done.stderr
    assert "has no whole copy" in done.stderr


class Payload:
    """Pickled, it makes a file where it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


def test_a_pickle_in_a_repository_is_not_loaded(commit: str, hub: Hub, client: Client, tmp_path: Path) -> None:
    pickled = hub.store.add(pickle.dumps(Payload(tmp_path / "executed")))
    changes = {"model.safetensors": None, "pytorch_model.bin": pickled, "training_args.bin": pickled}
    hub.store.commit(hub.repo("me/reviews"), "refs/heads/main", changes, title="evil", author="me")
    done = predict(client, "me/reviews")
    assert done.code == 2
    assert "no weights in safetensors" in done.stderr
    assert not (tmp_path / "executed").exists()


def test_a_repository_that_is_no_run_is_named_as_a_checkpoint(commit: str, hub: Hub, client: Client) -> None:
    hub.store.commit(hub.repo("me/reviews"), "refs/heads/main", {"task.json": None}, title="plain", author="me")
    done = predict(client, "me/reviews")
    assert done.code == 2
    assert "no task.json in it" in done.stderr
    assert "model.checkpoint=me/reviews" in done.stderr


def test_neither_folder_nor_repository_is_one_message(hub: Hub, client: Client, cache: Path) -> None:
    done = predict(client, "runs/nothing")
    assert done.code == 2
    assert "There is no run folder runs/nothing. On the Hub, runs/nothing: not on the Hub" in done.stderr


def test_a_private_run_needs_the_token(commit: str, client: Client) -> None:
    done = predict(client, "me/reviews", HF_TOKEN="")
    assert done.code == 2
    assert "wants one" in done.stderr


def test_what_is_no_id_is_never_asked_for(hub: Hub, client: Client, run: Path) -> None:
    shutil.rmtree(run / "model")
    unfinished, missing = predict(client, run), predict(client, "./nothing/at/all")
    assert unfinished.code == missing.code == 2
    assert "no finished model yet" in unfinished.stderr
    assert "it does not exist" in missing.stderr
    assert not hub.requests


def test_a_damaged_task_file_is_an_input_error(client: Client, run: Path) -> None:
    (run / "model/task.json").write_text(json.dumps([1]))
    done = predict(client, run)
    assert done.code == 2
    assert "task.json is damaged" in done.stderr


def test_the_page_of_a_pulled_run_is_written_where_the_user_is(commit: str, client: Client, cache: Path) -> None:
    done = client.run("report", "me/reviews", "--json")
    assert done.code == 0, done.stderr
    assert done.json["report"] == "reviews-report.html"
    assert "<title>reviews</title>" in (client.folder / "reviews-report.html").read_text(encoding="utf-8")
    assert not list(cache.rglob("report.html"))
