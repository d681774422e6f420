"""Whole processes of their own, started as a user starts them, with an empty cache."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.client import Client
from tests.hub.server import Hub

GUARD = """
import torch
try:
    import torchvision
except Exception:
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
"""A CPU build of torch beside torchvision's wheel needs it, whoever loads a model."""


def start(
    words: list[str], folder: Path, environment: dict[str, str], project: Path
) -> subprocess.CompletedProcess[str]:
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("HF_", "TRANSFORMERS_"))}
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(project), **environment},
        timeout=240,
    )


@pytest.fixture
def pushed(hub: Hub, client: Client, run: Path) -> Hub:
    assert client.run("push", run, "--repo-id", "me/reviews").code == 0
    return hub


@pytest.mark.slow
def test_a_fresh_process_predicts_by_the_hub_id_what_the_run_predicts(
    pushed: Hub, client: Client, run: Path, tmp_path: Path, project: Path
) -> None:
    words = ["--json", "--text", "good soup"]
    environment = pushed.environment(tmp_path / "home", pushed.token)
    done = start([str(project / "run.py"), "predict", "me/reviews", *words], tmp_path, environment, project)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == client.run("predict", run, *words).json


@pytest.mark.slow
def test_the_cards_own_snippet_loads_the_model_without_this_package(
    pushed: Hub, client: Client, run: Path, tmp_path: Path, project: Path
) -> None:
    text = pushed.store.content(pushed.repo("me/reviews"), "README.md").decode()
    snippet = re.search(r"```python\n(.+?)```", text, re.DOTALL)
    assert snippet is not None
    show = "\nimport json, sys\nassert 'nlp_finetune' not in sys.modules\nprint(json.dumps(pipe('good soup')))"
    environment = pushed.environment(tmp_path / "home", pushed.token)
    done = start(["-c", GUARD + snippet[1] + show], tmp_path, environment, project)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout.splitlines()[-1])
    (ours,) = client.run("predict", run, "--json", "--text", "good soup").json
    assert found["label"] == ours["label"]
    assert found["score"] == pytest.approx(ours["score"], abs=1e-6)


@pytest.mark.slow
def test_the_cards_own_snippet_loads_an_adapter_with_peft_alone(
    hub: Hub, client: Client, adapted: Path, tmp_path: Path, project: Path
) -> None:
    assert client.run("push", adapted, "--repo-id", "me/adapted").code == 0
    text = hub.store.content(hub.repo("me/adapted"), "README.md").decode()
    snippet = re.search(r"```python\n(.+?)```", text, re.DOTALL)
    assert snippet is not None
    assert "from peft import AutoPeftModelForSequenceClassification" in snippet[1]
    show = (
        "\nimport json, sys\nassert 'nlp_finetune' not in sys.modules\nprint(json.dumps(pipe('good soup', top_k=None)))"
    )
    environment = hub.environment(tmp_path / "home", hub.token)
    done = start(["-c", GUARD + snippet[1] + show], tmp_path, environment, project)
    assert done.returncode == 0, done.stderr
    found = {one["label"]: one["score"] for one in json.loads(done.stdout.splitlines()[-1])}
    (ours,) = client.run("predict", adapted, "--json", "--text", "good soup").json
    assert found == pytest.approx(ours["scores"], abs=1e-5)


def test_offline_mode_is_said_at_once(hub: Hub, run: Path, tmp_path: Path, project: Path) -> None:
    environment = hub.environment(tmp_path / "home", hub.token) | {"HF_HUB_OFFLINE": "1"}
    words = [str(project / "run.py"), "push", str(run), "--repo-id", "me/reviews"]
    done = start(words, tmp_path, environment, project)
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert f"The run is kept in {run}." in done.stderr
    assert not hub.requests


@pytest.mark.slow
def test_a_hub_that_is_not_there_is_said_with_its_address(hub: Hub, run: Path, tmp_path: Path, project: Path) -> None:
    nobody = "http://127.0.0.1:9"
    environment = hub.environment(tmp_path / "home", hub.token) | {"HF_ENDPOINT": nobody}
    words = [str(project / "run.py"), "push", str(run), "--repo-id", "me/reviews"]
    done = start(words, tmp_path, environment, project)
    assert done.returncode == 1
    assert f"the Hub ({nobody}) can't be reached" in done.stderr
    assert f"The run is kept in {run}." in done.stderr
