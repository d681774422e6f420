"""Runs with adapters on the Hub: pushed as peft repositories or merged, and the same run when pulled."""

import json
from pathlib import Path
from typing import Any

import pytest

from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.runs.staging import to_be_pushed
from tests.hub.client import Client, Done
from tests.hub.server import Hub

TEXTS = "text\ngood soup\nthe film was not good\n"
ADAPTER = {"adapter_config.json", "adapter_model.safetensors", "base_config/config.json"}


def push(client: Client, run: object, *options: str, repo_id: str = "me/adapted") -> Done:
    done = client.run("push", run, "--repo-id", repo_id, *options)
    assert done.code == 0, done.stderr
    return done


def predict(client: Client, run: object) -> Done:
    (client.folder / "texts.csv").write_text(TEXTS)
    return client.run("predict", run, "--json", "--input", "texts.csv")


def scores(client: Client, run: object) -> list[Any]:
    done = predict(client, run)
    assert done.code == 0, done.stderr
    return [answer["scores"] for answer in done.json]


def assert_same(found: list[Any], expected: list[Any]) -> None:
    assert [list(answer) for answer in found] == [list(answer) for answer in expected]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def read(hub: Hub, name: str, repo_id: str = "me/adapted") -> Any:
    return json.loads(hub.store.content(hub.repo(repo_id), name))


def test_an_adapter_is_pushed_alone_and_names_its_base_with_the_commit(
    hub: Hub, client: Client, base: str, adapted: Path
) -> None:
    done = push(client, adapted)
    files = set(hub.repo("me/adapted").files("main"))
    assert files > ADAPTER | {"task.json", "recipe.yaml", "metrics.json", "README.md", "tokenizer.json"}
    assert not files & {"model.safetensors", "config.json"}
    config = read(hub, "adapter_config.json")
    assert config["base_model_name_or_path"] == base
    assert config["revision"] == hub.repo(base).resolve("main")
    assert f"pushing the adapter for {base}" in done.stderr


def test_a_pulled_adapter_predicts_and_evaluates_as_the_run_does(
    hub: Hub, client: Client, adapted: Path, cache: Path
) -> None:
    push(client, adapted)
    assert_same(scores(client, "me/adapted"), scores(client, adapted))
    ours, theirs = (client.run("evaluate", run, "--json") for run in (adapted, "me/adapted"))
    for name, value in ours.json["metrics"].items():
        assert theirs.json["metrics"][name] == pytest.approx(value, abs=1e-5), name


def test_the_base_is_fetched_at_the_commit_that_was_adapted(
    hub: Hub, client: Client, base: str, adapted: Path, cache: Path
) -> None:
    push(client, adapted)
    before = scores(client, adapted)
    spoiled = {"config.json": hub.store.add(b"{}"), "model.safetensors": hub.store.add(b"other", lfs=True)}
    hub.store.commit(hub.repo(base), "refs/heads/main", spoiled, title="another model", author="them")
    assert_same(scores(client, "me/adapted"), before)


def test_merge_pushes_the_whole_model(hub: Hub, client: Client, adapted: Path, cache: Path) -> None:
    push(client, adapted, "--merge")
    files = set(hub.repo("me/adapted").files("main"))
    assert files > {"model.safetensors", "config.json"}
    assert not files & ADAPTER
    assert_same(scores(client, "me/adapted"), scores(client, adapted))


def test_a_pulled_adapter_can_be_pushed_merged(hub: Hub, client: Client, adapted: Path, cache: Path) -> None:
    push(client, adapted)
    push(client, "me/adapted", "--merge", repo_id="me/whole")
    files = set(hub.repo("me/whole").files("main"))
    assert "model.safetensors" in files
    assert not files & ADAPTER
    assert_same(scores(client, "me/whole"), scores(client, adapted))


def test_a_whole_model_takes_the_place_of_its_adapter_and_leaves_nothing_of_it(
    hub: Hub, client: Client, adapted: Path
) -> None:
    push(client, adapted)
    push(client, adapted, "--merge")
    assert not set(hub.repo("me/adapted").files("main")) & ADAPTER
    push(client, adapted)
    assert "model.safetensors" not in hub.repo("me/adapted").files("main")


def test_a_base_that_is_gone_is_named_with_its_commit(
    hub: Hub, client: Client, base: str, adapted: Path, cache: Path
) -> None:
    push(client, adapted)
    commit = hub.repo(base).resolve("main")
    del hub.store.repos["models", base]
    done = predict(client, "me/adapted")
    assert done.code == 2
    assert f"This run is an adapter for {base}, commit {commit}, which can't be loaded." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_base_that_arrives_damaged_is_never_used(hub: Hub, client: Client, adapted: Path, cache: Path) -> None:
    push(client, adapted)
    weights = hub.repo("them/tiny").files("main")["model.safetensors"]
    hub.fail("GET", f"/_objects/{weights.sha256}", "flip")
    done = predict(client, "me/adapted")
    assert done.code != 0
    assert "arrived damaged" in done.stderr
    assert_same(scores(client, "me/adapted"), scores(client, adapted))


def test_an_adapter_that_arrives_damaged_is_fetched_again(hub: Hub, client: Client, adapted: Path, cache: Path) -> None:
    push(client, adapted)
    weights = hub.repo("me/adapted").files("main")["adapter_model.safetensors"]
    fault = hub.fail("GET", f"/_objects/{weights.sha256}", "flip")
    assert_same(scores(client, "me/adapted"), scores(client, adapted))
    assert fault.times == 0


def test_an_adapter_for_a_folder_of_this_machine_is_pushed_merged(adapted: Path) -> None:
    file = adapted / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "/a/b", "revision": None}))
    said = list[str]()
    folder = RunFolder(adapted)
    assert to_be_pushed(folder, folder.model, merge=False, say=said.append) == folder.model
    assert said == ["the base of the adapter is not on the Hub, so the merged model is pushed"]


def test_merge_of_a_run_without_adapter_is_said_to_change_nothing(hub: Hub, client: Client, run: Path) -> None:
    done = push(client, run, "--merge", repo_id="me/reviews")
    assert "this run has no adapter" in done.stderr
    assert "model.safetensors" in hub.repo("me/reviews").files("main")


def test_the_command_that_repeats_a_push_merges_again(hub: Hub, client: Client, adapted: Path) -> None:
    hub.fail("POST", "/commit/", 403)
    done = client.run("push", adapted, "--repo-id", "me/adapted", "--merge")
    assert done.code == 2
    assert done.stderr.strip().endswith("--repo-id me/adapted --merge")
