"""Runs that are several: folds of the training rows, and losses that are compared on validation."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from nlp_finetune.data import groups, splits
from nlp_finetune.errors import InputError
from nlp_finetune.imbalance import Imbalance
from nlp_finetune.job import Result
from tests.command_line import run
from tests.tiny import TINY

FOLDS = ("data.folds=3", "train.max_steps=3")
IMBALANCE = ("loss.imbalance=auto", "train.max_steps=6", "train.eval_every=3")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def validated_on(part: Path) -> list[int]:
    lines = (part / "predictions/validation.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["row"] for line in lines]


def labelled(counts: dict[str, int]) -> Dataset:
    return Dataset.from_dict({"label": [name for name, count in counts.items() for _ in range(count)]})


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_divide_the_rows_and_every_class(folds: int) -> None:
    rows = labelled({"a": 20, "b": 9, "c": 2}).add_column("row", range(31))
    parts = [
        splits.fold(rows, folds=folds, number=n, seed=4, stratum=lambda row: row["label"]) for n in range(1, folds + 1)
    ]
    assert sorted(row for _, held_out in parts for row in held_out["row"]) == list(range(31))
    for stays, held_out in parts:
        assert sorted([*stays["row"], *held_out["row"]]) == list(range(31))
    for name in ("a", "b", "c"):
        counts = [Counter(held_out["label"])[name] for _, held_out in parts]
        assert max(counts) - min(counts) <= 1
    sizes = [len(held_out) for _, held_out in parts]
    assert max(sizes) - min(sizes) <= 1


def test_rows_that_share_a_text_are_in_one_fold() -> None:
    rows = Dataset.from_dict({"text": ["a"] * 5 + ["b"] * 2 + ["c"] * 2 + ["d"], "row": range(10)})
    parts = [groups.fold(rows, folds=2, number=n, seed=0, group=lambda row: row["text"]) for n in (1, 2)]
    assert [sorted(part[1]["row"]) for part in parts if part] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_more_folds_than_rows_are_refused() -> None:
    with pytest.raises(InputError, match=r"data.folds 4: there are 3 training rows"):
        splits.fold(labelled({"a": 3}), folds=4, number=1, seed=0, stratum=lambda row: row["label"])


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    done = run(*TINY, *FOLDS, "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    assert "105 validation rows of the data are left out" in done.stderr
    assert "mean of 3 folds" in done.stdout
    return folder / "run"


def test_every_training_row_is_validated_on_once(folds: Path) -> None:
    rows = [validated_on(folds / "parts" / f"fold-{n}") for n in (1, 2, 3)]
    counts = Counter(row for part in rows for row in part)
    assert set(counts.values()) == {1}
    metrics = read(folds / "metrics.json")
    sizes = [read(folds / "parts" / f"fold-{n}" / "metrics.json")["validation"]["rows"] for n in (1, 2, 3)]
    assert len(counts) == sum(sizes)
    assert metrics["folds"]["folds"] == [1, 2, 3]


def test_the_model_on_top_is_that_of_the_best_fold_and_the_card_says_what_that_means(folds: Path) -> None:
    metrics = read(folds / "metrics.json")
    spread = metrics["folds"]["validation"]["accuracy"]
    best = metrics["folds"]["best"]
    assert spread["values"][best - 1] == max(spread["values"])
    file = "model/model.safetensors"
    assert (folds / file).read_bytes() == (folds / "parts" / f"fold-{best}" / file).read_bytes()
    card = (folds / "README.md").read_text("utf-8")
    assert "3-fold cross-validation" in card
    assert "the mean is the score to expect" in card
    assert "with 3 folds" in (folds / "report.html").read_text("utf-8")


def test_a_run_of_folds_goes_on_with_the_fold_that_is_missing(folds: Path, tmp_path: Path) -> None:
    shutil.copytree(folds, tmp_path / "run")
    again = tmp_path / "run"
    for name in ("model", "parts/fold-3"):
        shutil.rmtree(again / name)
    for name in ("metrics.json", "status.json"):
        (again / name).unlink()
    finished = (again / "parts/fold-1/metrics.json").stat().st_mtime_ns
    done = run(*TINY, *FOLDS, "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert (again / "parts/fold-1/metrics.json").stat().st_mtime_ns == finished
    file = "parts/fold-3/model/model.safetensors"
    assert (again / file).read_bytes() == (folds / file).read_bytes()


@pytest.fixture(scope="module")
def imbalance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imbalance")
    done = run(*TINY, *IMBALANCE, "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    assert "has the best validation macro_f1 (plain " in done.stderr
    return folder / "run"


def test_the_loss_is_chosen_by_validation_and_the_choice_is_told(imbalance: Path) -> None:
    found = read(imbalance / "metrics.json")["imbalance"]
    parts = {
        name: read(imbalance / "parts" / f"loss-{name}" / "metrics.json")
        for name in ("plain", "balanced", "focal", "sampler")
    }
    assert found["scores"] == {name: part["validation"]["macro_f1"] for name, part in parts.items()}
    assert found["scores"][found["best"]] == max(found["scores"].values())
    assert read(imbalance / "decisions.json")["loss"] == ("focal" if found["best"] == "focal" else "cross_entropy")
    assert "The test rows had no part in it" in (imbalance / "README.md").read_text("utf-8")
    assert "test" not in json.dumps(found)


def test_the_plain_loss_wins_a_tie() -> None:
    results = [Result("", {"validation": {"rows": 9, "macro_f1": value}}) for value in (0.5, 0.5, 0.4)]
    series: Any = Imbalance(None, {"plain": {}, "balanced": {}, "focal": {}}, metric="macro_f1")  # type: ignore[arg-type]
    found = series.summary(results)
    assert found["best"] == "plain"
    assert "so the loss stays plain" in found["why"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("loss.imbalance=auto loss.name=focal", "loss.imbalance auto tries it by itself"),
        ("loss.imbalance=auto data.source=demo:similarity", "are not classes here"),
        ("loss.imbalance=auto data.folds=3", "one series at a time; leave data.folds out"),
        ("data.folds=3 'train.seeds=[1, 2]'", "one series at a time; leave train.seeds out"),
        ("loss.imbalance=auto data.sampler=balanced", "loss.imbalance auto tries it by itself"),
        ("loss.imbalance=auto train.metric=loss", "losses can't be compared by train.metric loss"),
        ("data.folds=1", "data.folds"),
        ("data.folds=2 data.fold=3", "needs data.folds, at least as many"),
        ("data.folds=900", "there are 410 training rows"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(more: str, message: str, tmp_path: Path) -> None:
    given = [word.strip("'") for word in more.replace(", 2", ",2").split()]
    done = run(*TINY, *given, "output_dir=run", cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_check_says_that_there_are_several_runs(tmp_path: Path) -> None:
    done = run("check", *TINY, "data.folds=3", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["plan"]["plan"]["runs"].startswith("3, one a fold of the training rows")
