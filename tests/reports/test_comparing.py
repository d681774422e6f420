"""Runs side by side, and whether they differ by more than chance."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nlp_finetune.metrics.intervals import paired_bootstrap
from nlp_finetune.reports.comparing import compare, differences
from nlp_finetune.reports.reading import read
from tests.command_line import run
from tests.reports.made import make_run


def test_a_system_does_not_differ_from_itself() -> None:
    values = np.tile(np.random.default_rng(0).random(50) < 0.7, (2, 1))
    low, high, p = paired_bootstrap(values, np.ones((2, 50)))
    assert (low, high, p) == (0, 0, 1)


def test_the_interval_of_a_difference_agrees_with_the_normal_approximation() -> None:
    random = np.random.default_rng(1)
    first = (random.random(2000) < 0.7).astype(float)
    second = np.where(random.random(2000) < 0.1, 1.0, first)
    low, high, p = paired_bootstrap(np.stack([first, second]), np.ones((2, 2000)))
    difference = second - first
    error = 1.96 * difference.std() / math.sqrt(2000)
    assert low == pytest.approx(difference.mean() - error, abs=0.002)
    assert high == pytest.approx(difference.mean() + error, abs=0.002)
    assert p < 0.01


def test_chance_alone_is_called_significant_about_as_often_as_the_level_says() -> None:
    random = np.random.default_rng(2)
    found = [
        paired_bootstrap((random.random((2, 200)) < 0.7).astype(float), np.ones((2, 200)), resamples=400)[2] < 0.05
        for _ in range(200)
    ]
    assert 0.01 <= np.mean(found) <= 0.1


def test_weighted_rows_give_the_difference_of_weighted_means() -> None:
    values, weights = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[3.0, 1.0], [3.0, 1.0]])
    low, high, _ = paired_bootstrap(values, weights)
    assert low == pytest.approx(-1)
    assert high == pytest.approx(1)


@pytest.mark.parametrize("shape", [(2, 0), (3, 5), (2,)])
def test_a_paired_bootstrap_needs_two_systems_on_some_rows(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="systems"):
        paired_bootstrap(np.ones(shape), np.ones(shape))


def test_a_better_run_is_called_better_on_the_same_rows(tmp_path: Path) -> None:
    a = read(make_run(tmp_path / "a", rows=600, skill=1.5))
    b = read(make_run(tmp_path / "b", rows=600, skill=3.0, seed=1))
    there, back = compare(a, b), compare(b, a)
    assert (there.verdict, back.verdict) == ("better", "worse")
    assert there.difference == pytest.approx(-(back.difference or 0))
    assert there.note == "all 600 test rows"
    assert all(first["score"] < second["score"] for first, second in there.better_in)


def test_runs_of_equal_skill_cannot_be_told_apart(tmp_path: Path) -> None:
    a, b = (read(make_run(tmp_path / str(seed), rows=300, seed=seed)) for seed in (1, 2))
    assert compare(a, b).verdict == "no difference that these rows can show"


def test_different_test_data_are_said_and_only_shared_rows_count(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", rows=300), make_run(tmp_path / "b", rows=300, seed=1)
    file = b.predictions / "test.jsonl"
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines()[:120]))
    found = compare(read(a), read(b))
    assert (found.rows_shared, found.rows_first, found.rows_second) == (120, 300, 120)
    assert "different test data" in found.note


def test_runs_without_a_common_row_or_predictions_are_not_compared(tmp_path: Path) -> None:
    a, other = make_run(tmp_path / "a", rows=80), make_run(tmp_path / "b", rows=80, data_seed=9)
    running = make_run(tmp_path / "c", state="running")
    assert "no row that both have predicted" in compare(read(a), read(other)).verdict
    assert "no predictions of c" in compare(read(a), read(running)).verdict


def test_repeated_texts_are_paired_one_by_one(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, rows=50, seed=i) for i, name in enumerate("ab")]
    for folder in folders:
        file = folder.predictions / "test.jsonl"
        lines = [{**json.loads(line), "key": "same"} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert compare(*map(read, folders)).rows_shared == 50


def test_only_keys_that_differ_are_listed() -> None:
    first = {"name": "a", "optim": {"learning_rate": 1e-3, "name": "adamw"}, "lora": None}
    second = {"name": "b", "optim": {"learning_rate": 1e-4, "name": "adamw"}, "lora": {"rank": 8}}
    assert differences([first, second]) == [
        {"key": "lora", "values": ["null", ""]},
        {"key": "lora.rank", "values": ["", "8"]},
        {"key": "optim.learning_rate", "values": ["0.001", "0.0001"]},
    ]


def test_report_of_several_runs_prints_and_writes_a_comparison(tmp_path: Path) -> None:
    make_run(tmp_path / "x" / "run", rows=300, skill=1.5)
    make_run(tmp_path / "y" / "run", rows=300, skill=3.0, seed=1, learning_rate=2e-5)
    done = run("report", "x/run", "y/run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "y/run against x/run: better" in done.stdout
    text = (tmp_path / "comparison.html").read_text()
    assert "optim.learning_rate" in text
    done = run("report", "x/run", "y/run", "--json", cwd=tmp_path)
    (found,) = json.loads(done.stdout)["comparisons"]
    assert found["verdict"] == "better"
    assert found["low"] > 0
    assert found["p"] < 0.05
