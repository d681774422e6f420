"""Data sets of a Hub, played by a small server: what is loaded, what is said, what is refused."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "a" * 40
TRAIN = b"text,label,row\ngood,1,9\nbad,0,8\nfine,1,7\n"
CARD = b"""---
configs:
- {config_name: small, data_files: a.csv}
- {config_name: big, data_files: b.csv}
---
"""
DATA_SETS = {
    "me/reviews": {"README.md": b"---\nlicense: mit\n---\n", "train.csv": TRAIN, "test.csv": TRAIN},
    "me/old": {"README.md": b"---\nlicense: mit\n---\n", "old.py": b"print()"},
    "me/several": {"README.md": CARD, "a.csv": TRAIN, "b.csv": TRAIN},
    "me/broken": {"README.md": b"---\nlicense: mit\n---\n", "train.parquet": b"PAR1 and no more"},
}
ASKED = {
    "defaults": {"source": "me/reviews"},
    "slices": {"source": "me/reviews", "train": "train[:2]", "validation": "train[2:]", "test": "test"},
    "pinned": {"source": "me/reviews", "revision": COMMIT},
    "other revision": {"source": "me/reviews", "revision": "b" * 40},
    "no such split": {"source": "me/reviews", "validation": "dev"},
    "text settings": {"source": "me/reviews", "columns": ["text", "label"]},
    "missing": {"source": "me/nothing"},
    "near a local file": {"source": "reviws"},
    "gated": {"source": "me/gated"},
    "script": {"source": "me/old"},
    "no config": {"source": "me/several"},
    "config": {"source": "me/several:big"},
    "wrong config": {"source": "me/several:huge"},
    "two configs": {"source": "me/several:big", "config": "small"},
    "broken": {"source": "me/broken"},
    "no id": {"source": "me/re views"},
}
SCRIPT = """
import json, sys, time
from nlp_finetune.data.sources import load
from nlp_finetune.errors import InputError
answers = {}
for name, asked in json.load(sys.stdin).items():
    start = time.perf_counter()
    try:
        data = load(**{"train": "train", "validation": "validation", "test": None, **asked})
        answers[name] = {"splits": {split: rows.to_dict() for split, rows in data.splits.items()},
                         "origins": data.origins, "notes": data.notes, "fingerprint": data.fingerprint}
    except InputError as error:
        answers[name] = {"refused": str(error)}
    answers[name]["seconds"] = time.perf_counter() - start
json.dump(answers, open(sys.argv[1], "w"))
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as loading a data set asks for."""

    def log_message(self, *_: Any) -> None: ...

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        is_api = parts[0] == "api"
        name = "/".join(parts[2:4] if is_api else parts[1:3])
        files = DATA_SETS.get(name)
        if name == "me/gated":
            self.answer(403, X_Error_Code="GatedRepo")
        elif files is None:
            self.answer(404, X_Error_Code="RepoNotFound")
        elif "b" * 40 in parts:
            self.answer(404, X_Error_Code="RevisionNotFound")
        elif "tree" in parts:
            tree = [{"type": "file", "path": f, "size": len(b), "oid": digest(b)} for f, b in files.items()]
            self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
        elif is_api:
            self.answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode())
        elif (file := "/".join(parts[5:])) in files:
            self.answer(200, files[file], X_Repo_Commit=COMMIT, ETag=f'"{digest(files[file])}"')
        else:
            self.answer(404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def ask(endpoint: str, home: Path, project: Path, asked: dict[str, Any], **environment: str) -> dict[str, Any]:
    """Load all that is asked in a process of its own: the Hub's address is read at import."""
    (home / "reviews.csv").write_text("text\na\n")
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": str(project)}
    variables |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    output = home / f"{uuid.uuid4()}.json"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(output)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env={**inherited, **variables},
        cwd=home,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers: dict[str, Any] = json.loads(output.read_text())
    return answers


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, project: Path) -> dict[str, Any]:
    """What is answered with the Hub there, then with nobody at its address, then in offline mode."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    home = tmp_path_factory.mktemp("hub")
    try:
        reached = ask(endpoint, home, project, ASKED)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with ThreadPoolExecutor() as both:
        unreached = both.submit(ask, endpoint, home, project, ASKED)
        offline = both.submit(ask, endpoint, home, project, ASKED, HF_HUB_OFFLINE="1")
        return {"reached": reached, "unreached": unreached.result(), "offline": offline.result()}


def test_the_validation_split_may_be_missing_and_the_test_split_waits_to_be_asked_for(
    answers: dict[str, Any],
) -> None:
    data = answers["reached"]["defaults"]
    assert data["splits"] == {
        "train": {"text": ["good", "bad", "fine"], "label": [1, 0, 1], "row_": [9, 8, 7], "row": [1, 2, 3]}
    }
    assert data["origins"] == {"train": "me/reviews, split train"}
    assert data["notes"] == [
        "me/reviews, split train: its column 'row' is called 'row_' here; 'row' is the row number",
        "no validation split: me/reviews has train, test",
        "no test split: me/reviews has one, but data.test is not set",
    ]


def test_slices_of_splits_are_splits(answers: dict[str, Any]) -> None:
    splits = answers["reached"]["slices"]["splits"]
    assert {split: rows["text"] for split, rows in splits.items()} == {
        "train": ["good", "bad"],
        "validation": ["fine"],
        "test": ["good", "bad", "fine"],
    }


def test_a_configuration_is_named_after_a_colon(answers: dict[str, Any]) -> None:
    assert answers["reached"]["config"]["splits"]["train"]["text"] == ["good", "bad", "fine"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("no such split", "data.validation=dev: there is no such split (me/reviews has train, test)"),
        ("text settings", "data.columns: only for text files"),
        ("other revision", "The data set me/reviews has no revision bbbb"),
        ("missing", "There is no data set me/nothing on the Hub, or it is private and HF_TOKEN"),
        ("near a local file", "Did you mean reviews.csv on this machine?"),
        ("gated", "The data set me/gated is gated: ask for access"),
        ("script", "data.revision=refs/convert/parquet"),
        (
            "no config",
            "has several configurations. It has ['small', 'big']. Choose one with data.source=me/several:",
        ),
        ("wrong config", "has no configuration huge. It has ['small', 'big']"),
        ("two configs", "data.source=me/several:big and data.config=small name two configurations"),
        ("broken", "The data set me/broken cannot be loaded: "),
        ("no id", "data.source=me/re views is neither a file, a folder, demo:NAME nor a data set id"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(answers: dict[str, Any], asked: str, said: str) -> None:
    assert said in answers["reached"][asked]["refused"]


@pytest.mark.parametrize("how", ["unreached", "offline"])
def test_without_the_hub_the_cached_copy_is_the_same_data_and_that_is_said(answers: dict[str, Any], how: str) -> None:
    data = answers[how]["defaults"]
    assert data["splits"] == answers["reached"]["defaults"]["splits"]
    assert data["fingerprint"] == answers["reached"]["defaults"]["fingerprint"]
    assert f"me/reviews: the Hub cannot be reached, taken from the cache (revision {COMMIT})" in data["notes"]


@pytest.mark.parametrize("how", ["unreached", "offline"])
def test_without_the_hub_a_pinned_revision_is_taken_from_the_cache_or_not_at_all(
    answers: dict[str, Any], how: str
) -> None:
    assert answers[how]["pinned"]["splits"] == answers["reached"]["pinned"]["splits"]
    refused = answers[how]["other revision"]["refused"]
    assert f"the cache has me/reviews at revision {COMMIT}, not at {'b' * 40}" in refused


@pytest.mark.parametrize("how", ["unreached", "offline"])
def test_without_the_hub_and_a_copy_the_ways_on_are_named(answers: dict[str, Any], how: str) -> None:
    refused = answers[how]["missing"]["refused"]
    assert "The Hub cannot be reached" in refused
    for way in ("data.source=FILE", "--demo", "HF_HOME"):
        assert way in refused


@pytest.mark.parametrize("how", ["unreached", "offline"])
def test_without_the_hub_the_answer_takes_seconds(answers: dict[str, Any], how: str) -> None:
    assert sum(answer["seconds"] for answer in answers[how].values()) < 10


@pytest.mark.slow
def test_a_hub_that_accepts_and_never_answers_is_given_up_in_seconds(project: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        answer = ask(endpoint, tmp_path, project, {"missing": ASKED["missing"]})["missing"]
    assert "The Hub cannot be reached" in answer["refused"]
    assert answer["seconds"] < 15
