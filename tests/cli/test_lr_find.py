"""lr-find through the command line: it suggests a rate, draws it, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nlp_finetune.recipe as recipes
from tests.command_line import run
from tests.tiny import TINY


@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_a_rate_is_suggested_and_drawn_and_nothing_else_is_written(engine: str, tmp_path: Path) -> None:
    done = run("lr-find", *TINY, f"train.engine={engine}", "--steps", "60", "--high", "10", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["rates"]) == len(found["losses"]) <= 60
    assert found["rates"][0] == pytest.approx(1e-7)
    assert found["rates"] == sorted(found["rates"])
    assert [file.name for file in tmp_path.iterdir()] == ["lr-find.html"]
    assert "<svg" in (tmp_path / "lr-find.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--steps", "3"), "at least 20"),
        (("--low", "1", "--high", "0.1"), "0 < low < high"),
        (("--output", "nowhere/page.html"), "there is no folder nowhere"),
        (("optim.learnin_rate=1",), "did you mean"),
    ],
)
def test_wrong_arguments_exit_with_2_and_one_message(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = run("lr-find", *TINY, *arguments, cwd=tmp_path)
    assert done.code == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(recipes.shipped()))
def test_every_recipe_has_a_range_test(name: str, tmp_path: Path) -> None:
    settings = ("train.batch_size=4", "train.micro_batch_size=4")
    done = run("lr-find", "--recipe", name, "--demo", *settings, "--steps", "20", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert len(json.loads(done.stdout)["rates"]) > 5
