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
