"""A push in a world that fails: it ends well or says so, and never leaves half a repository."""

from pathlib import Path

import pytest

from tests.hub.client import Client, Done
from tests.hub.server import Hub, Kind

FILES = 9
PASSING: dict[str, tuple[str, str, Kind]] = {
    "503 to who am I": ("GET", "/whoami", 503),
    "500 to the making of the repository": ("POST", "/repos/create", 500),
    "the answer to it lost": ("POST", "/repos/create", "lost"),
    "503 to the check of the card": ("POST", "/validate-yaml", 503),
    "429 to the question how to upload": ("POST", "/preupload/", 429),
    "500 to the LFS batch": ("POST", "/objects/batch", 500),
    "503 to the upload": ("PUT", "/_objects/", 503),
    "429 to the upload": ("PUT", "/_objects/", 429),
    "500 to the question how to upload": ("POST", "/preupload/", 500),
    "503 to the question how to upload": ("POST", "/preupload/", 503),
    "429 to the LFS batch": ("POST", "/objects/batch", 429),
    "503 to the LFS batch": ("POST", "/objects/batch", 503),
    "an upload cut in the middle": ("PUT", "/_objects/", "cut"),
    "an upload with a wrong byte": ("PUT", "/_objects/", "garble"),
    "the answer to the upload lost": ("PUT", "/_objects/", "lost"),
    "500 to the LFS verification": ("POST", "/lfs/verify", 500),
    "503 to the commit": ("POST", "/commit/", 503),
    "500 to the commit": ("POST", "/commit/", 500),
    "412 to the commit, the head has moved": ("POST", "/commit/", 412),
    "429 to the commit": ("POST", "/commit/", 429),
    "409 to the commit, another under way": ("POST", "/commit/", 409),
    "a commit cut in the middle": ("POST", "/commit/", "cut"),
    "a commit that never arrives": ("POST", "/commit/", "drop"),
    "the answer to the commit lost": ("POST", "/commit/", "lost"),
    "503 to the look at the result": ("GET", "/tree/", 503),
}


def push(client: Client, run: Path, *options: str) -> Done:
    return client.run("push", run, "--repo-id", "me/reviews", *options)


def assert_pushed_once(hub: Hub, done: Done, *, commits: int = 2) -> None:
    repo = hub.repo("me/reviews")
    assert done.code == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/me/reviews/commit/{repo.resolve('main')}"
    assert len(repo.files("main")) == FILES
    assert len(repo.commits) == commits
    assert "pushed and verified" in done.stderr


def assert_untouched(hub: Hub, done: Done) -> None:
    repo = hub.repo("me/reviews")
    assert done.code == 1, done.stderr
    assert done.stdout == ""
    assert len(repo.commits) == 1
    assert "To push it again:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("what", PASSING)
def test_what_passes_is_tried_again_and_makes_one_commit(what: str, hub: Hub, client: Client, run: Path) -> None:
    method, path, kind = PASSING[what]
    fault = hub.fail(method, path, kind)
    done = push(client, run)
    assert fault.times == 0
    assert_pushed_once(hub, done)


LASTING: dict[str, tuple[str, str, Kind, str]] = {
    "500 to every upload": ("PUT", "/_objects/", 500, "HTTP 500"),
    "every upload cut": ("PUT", "/_objects/", "cut", "disconnected"),
    "500 to every commit": ("POST", "/commit/", 500, "HTTP 500 (injected)"),
    "no commit that arrives": ("POST", "/commit/", "drop", "tried 4 times"),
    "412 to every commit": ("POST", "/commit/", 412, "HTTP 412"),
}


@pytest.mark.parametrize("what", LASTING)
def test_what_lasts_ends_in_one_message_and_the_same_command_completes_the_push(
    what: str, hub: Hub, client: Client, run: Path
) -> None:
    method, path, kind, message = LASTING[what]
    hub.fail(method, path, kind, times=1000)
    done = push(client, run)
    assert_untouched(hub, done)
    assert message in done.stderr
    hub.faults.clear()
    assert_pushed_once(hub, push(client, run))


@pytest.mark.parametrize(
    ("status", "message"), [(403, "this token may not do that"), (401, "does not accept the token"), (400, "HTTP 400")]
)
def test_a_refused_commit_is_final(status: int, message: str, hub: Hub, client: Client, run: Path) -> None:
    hub.fail("POST", "/commit/", status, times=1000)
    done = push(client, run)
    assert done.code == 2
    assert message in done.stderr
    assert len(hub.asked("POST", "/commit/")) == 1
    assert len(hub.repo("me/reviews").commits) == 1


def test_what_was_uploaded_before_a_failure_is_not_sent_again(hub: Hub, client: Client, run: Path) -> None:
    hub.fail("POST", "/commit/", 500, times=1000)
    push(client, run)
    assert len(hub.asked("PUT", "/")) == 1


def test_a_commit_that_landed_is_not_made_again_though_every_answer_is_lost(
    hub: Hub, client: Client, run: Path
) -> None:
    hub.fail("POST", "/commit/", "lost", times=1000)
    assert_pushed_once(hub, push(client, run))


def test_a_pull_request_is_opened_once_though_its_answer_is_lost(hub: Hub, client: Client, run: Path) -> None:
    hub.fail("POST", "/commit/", "lost")
    done = push(client, run, "--create-pr")
    assert done.code == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/me/reviews/discussions/1"
    assert list(hub.repo("me/reviews").pulls) == [1]


def test_the_commit_of_somebody_else_in_between_is_kept(hub: Hub, client: Client, run: Path) -> None:
    def somebody() -> None:
        names = ("LICENSE", "config.json", "model-00001-of-00002.safetensors")
        theirs = {name: hub.store.add(b"theirs") for name in names}
        hub.store.commit(hub.repo("me/reviews"), "refs/heads/main", theirs, title="theirs", author="them")

    hub.fail("POST", "/commit/", somebody)
    done = push(client, run)
    repo = hub.repo("me/reviews")
    assert done.code == 0, done.stderr
    assert [repo.commits[oid].title for oid in repo.commits][1] == "theirs"
    assert len(repo.commits) == 3
    assert len(repo.files("main")) == FILES + 1
    assert hub.store.content(repo, "config.json") != b"theirs"


def test_a_hub_that_holds_something_else_than_was_sent_is_no_success(hub: Hub, client: Client, run: Path) -> None:
    def spoil() -> None:
        repo = hub.repo("me/reviews")
        repo.commits[repo.resolve("main") or ""].files["model.safetensors"] = hub.store.add(b"no", lfs=True)

    hub.fail("GET", "/tree/", lambda: None)
    hub.fail("GET", "/tree/", spoil)
    done = push(client, run)
    assert done.code == 1
    assert "model.safetensors is not what was sent" in done.stderr
    assert done.stdout == ""


def test_a_kill_in_the_middle_of_the_upload_leaves_the_repository_as_it_was(
    hub: Hub, client: Client, run: Path
) -> None:
    hub.fail("PUT", "/_objects/", client.kill)
    assert push(client, run).code == -9
    assert len(hub.repo("me/reviews").commits) == 1
    assert_pushed_once(hub, push(client, run))


def test_a_tag_that_fails_says_that_the_commit_is_there(hub: Hub, client: Client, run: Path) -> None:
    hub.fail("POST", "/tag/", 500, times=1000)
    done = push(client, run, "--tag", "v1")
    repo = hub.repo("me/reviews")
    assert done.code == 1
    assert f"/commit/{repo.resolve('main')} is there, but not its tag v1" in done.stderr
    hub.faults.clear()
    assert push(client, run, "--tag", "v1").code == 0
    assert repo.refs["refs/tags/v1"] == repo.resolve("main")
    assert len(repo.commits) == 2


def test_a_hub_that_asks_for_patience_gets_it(hub: Hub, client: Client, run: Path) -> None:
    hub.fail("POST", "/commit/", 429, headers={"Retry-After": "7"})
    done = push(client, run)
    assert_pushed_once(hub, done)
    assert "slept 7.0" in done.stderr


def test_a_long_list_of_files_is_read_to_its_end(hub: Hub, client: Client, run: Path) -> None:
    hub.page_size = 2
    try:
        assert_pushed_once(hub, push(client, run))
    finally:
        hub.page_size = 1000
