"""A hub, a client of it, and a finished run of a tiny real model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.client import Client
from tests.hub.server import Hub


@pytest.fixture(scope="session")
def _hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def hub(_hub: Hub) -> Hub:
    """The server, with no repositories in it."""
    _hub.forget()
    return _hub


@pytest.fixture(scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def client(_hub: Hub, _home: Path, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A process that is logged in to the server as its user, in an empty folder."""
    environment = _hub.environment(_home, _hub.token)
    with Client(environment, cwd=tmp_path_factory.mktemp("work"), project=project) as client:
        yield client


@pytest.fixture(scope="session")
def _made(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "run"
    # There, where transformers is imported already.
    done = client.python(f"from tests.hub.runs import make_run; make_run({str(folder)!r})")
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture
def run(_made: Path, tmp_path: Path) -> Path:
    """A finished run; a copy, so that tests may change it."""
    return Path(shutil.copytree(_made, tmp_path / "run"))


@pytest.fixture
def cache(_home: Path) -> Path:
    """The client's cache of the Hub, empty."""
    shutil.rmtree(_home / "hub", ignore_errors=True)
    return _home / "hub"


@pytest.fixture(scope="session")
def _base_files(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "base"
    done = client.python(f"from tests.hub.runs import make_base; make_base({str(folder)!r})")
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture
def base(hub: Hub, _base_files: Path) -> str:
    """The id of a pretrained model that somebody else has pushed."""
    repo = hub.store.create("models", "them/tiny", private=False, author="them")
    files = {
        file.name: hub.store.add(file.read_bytes(), lfs=file.suffix == ".safetensors") for file in _base_files.iterdir()
    }
    hub.store.commit(repo, "refs/heads/main", files, title="a tiny BERT", author="them")
    return repo.id


@pytest.fixture(scope="session")
def _adapted() -> dict[str, Path]:
    return {}


@pytest.fixture
def adapted(base: str, client: Client, _adapted: dict[str, Path], tmp_path: Path) -> Path:
    """A run that trained an adapter for `base` and a head for the demo's three classes; a copy."""
    if not _adapted:
        folder = client.folder / "adapted"
        done = client.run(
            "--recipe", "text_cls", f"model.checkpoint={base}", "data.source=demo:reviews", "lora.rank=4",
            "optim.learning_rate=1e-2", "task.max_length=32", "train.max_steps=6", "train.batch_size=16",
            "train.threads=1", f"output_dir={folder}",
        )  # fmt: skip
        assert done.code == 0, done.stderr
        _adapted["run"] = folder
    return Path(shutil.copytree(_adapted["run"], tmp_path / "adapted"))
