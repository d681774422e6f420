"""A Hub checkpoint becomes a folder, or one clear message; the Hub here is a server of a few lines."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from nlp_finetune.errors import InputError
from nlp_finetune.models import hub
from nlp_finetune.models.checkpoint import resolve
from nlp_finetune.models.loading import load_config

from .conftest import Lines

COMMIT = "c" * 40
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "vocab.txt": b"[PAD]",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same again",
    "onnx/model.onnx": b"not wanted",
}


class FakeHub(BaseHTTPRequestHandler):
    """Speaks as much of the Hub's HTTP API as a download needs."""

    files = FILES
    refusal: tuple[int, str] | None = None
    damaged: bytes | None = None

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if self.refusal is not None:
            self._send(self.refusal[0], b"", {"X-Error-Code": self.refusal[1]}, body=body)
        elif "/tree/" in path:
            self._json([{"type": "file", "path": n, "size": len(c), "oid": oid(c)} for n, c in self.files.items()])
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": n, "size": len(c), **lfs(n, c)} for n, c in self.files.items()]
            self._json({"id": "me/model", "sha": COMMIT, "siblings": siblings})
        else:
            name = path.split(f"/resolve/{COMMIT}/")[-1].split("/resolve/main/")[-1]
            content = self.files[name]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{oid(content)}"'}
            if self.damaged is not None and name == "model.safetensors":
                content = self.damaged
            self._send(200, content, headers, body=body)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body=True)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


def oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def lfs(name: str, content: bytes) -> dict[str, Any]:
    if name != "model.safetensors":
        return {}
    digest = hashlib.sha256(content).hexdigest()
    return {"lfs": {"sha256": digest, "size": len(content), "pointerSize": 1}}


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    """A Hub of this test's own, and an empty cache."""
    handler = type("Handler", (FakeHub,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "DOWNLOAD_TRIES", 1)
    hub._look_up.cache_clear()
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_folder_is_the_commit_with_safetensors_and_without_other_formats(fake_hub: type[FakeHub]) -> None:
    said = Lines()
    folder = hub.snapshot("me/model", revision=None, weights=True, say=said)
    assert folder.name == COMMIT
    assert sorted(f.name for f in folder.iterdir()) == ["config.json", "model.safetensors", "vocab.txt"]
    assert "downloading model.safetensors" in said[0]


def test_weights_wait_until_they_are_asked_for(fake_hub: type[FakeHub]) -> None:
    folder = hub.snapshot("me/model", revision=None, weights=False)
    assert sorted(f.name for f in folder.iterdir()) == ["config.json", "vocab.txt"]


def test_without_safetensors_the_pickled_weights_are_fetched(fake_hub: type[FakeHub]) -> None:
    fake_hub.files = {name: c for name, c in FILES.items() if name != "model.safetensors"}
    assert (hub.snapshot("me/model", revision=None, weights=True) / "pytorch_model.bin").is_file()


def test_a_second_load_downloads_nothing_and_says_nothing(fake_hub: type[FakeHub]) -> None:
    hub.snapshot("me/model", revision=None, weights=True)
    said = Lines()
    hub.snapshot("me/model", revision=None, weights=True, say=said)
    assert said == []


def test_the_cache_serves_offline(fake_hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch) -> None:
    before = hub.snapshot("me/model", revision=None, weights=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.snapshot("me/model", revision=None, weights=True) == before


def test_the_cache_serves_while_the_hub_is_down_and_that_is_said(
    fake_hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hub.snapshot("me/model", revision=None, weights=True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    said = Lines()
    assert hub.snapshot("me/model", revision=None, weights=True, say=said) == before
    assert "the cached copy serves" in said[0]


def test_a_cache_with_configuration_only_is_not_enough_for_weights(
    fake_hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.snapshot("me/model", revision=None, weights=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="but not its weights"):
        hub.snapshot("me/model", revision=None, weights=True)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "no such model on the Hub, or a private one"),
        (404, "RevisionNotFound", "revision v9 of it is not"),
        (403, "GatedRepo", "a gated model"),
        (418, "", "the Hub refuses it .HTTP 418"),
        (503, "", "the Hub can't be reached .HTTP 503"),
    ],
)
def test_each_answer_of_the_hub_has_its_own_message(
    fake_hub: type[FakeHub], status: int, code: str, message: str
) -> None:
    fake_hub.refusal = (status, code)
    with pytest.raises(InputError, match=message):
        hub.snapshot("me/model", revision="v9", weights=True)


def test_damaged_weights_are_noticed_and_leave_the_cache(fake_hub: type[FakeHub]) -> None:
    fake_hub.damaged = b"Weights"
    with pytest.raises(InputError, match="arrived damaged"):
        hub.snapshot("me/model", revision=None, weights=True)
    fake_hub.damaged = None
    assert (hub.snapshot("me/model", revision=None, weights=True) / "model.safetensors").read_bytes() == b"weights"


def test_a_repository_without_torch_weights_says_so(fake_hub: type[FakeHub]) -> None:
    fake_hub.files = {"config.json": b"{}", "tf_model.h5": b""}
    with pytest.raises(InputError, match="no weights that PyTorch loads"):
        hub.snapshot("me/model", revision=None, weights=True)


def test_a_misspelt_folder_that_reads_like_a_hub_id_is_told_its_neighbour(
    fake_hub: type[FakeHub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hub.refusal = (404, "RepoNotFound")
    (tmp_path / "runs" / "reviews").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="Did you mean runs/reviews"):
        load_config(resolve("runs/revews"), overrides={}, edits={})


def test_an_unreachable_hub_is_said_within_seconds(tmp_path: Path, project: Path) -> None:
    code = (
        "import time; from nlp_finetune.models.checkpoint import resolve\n"
        "from nlp_finetune.models.loading import load_config; began = time.time()\n"
        "try: load_config(resolve('google-bert/bert-base-uncased'), overrides={}, edits={})\n"
        "except Exception as e: print(time.time() - began, type(e).__name__, e)"
    )
    hub_is_gone = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **hub_is_gone},
        check=True,
        cwd=project,
    )
    seconds, kind, message = done.stdout.split(" ", 2)
    assert float(seconds) < 15
    assert kind == "InputError"
    assert all(way in message for way in ("model.checkpoint=FOLDER", "--demo", "HF_HUB_OFFLINE=1"))
    assert done.stderr == ""
