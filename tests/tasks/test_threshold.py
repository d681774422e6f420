"""The threshold between two classes: tuned on validation, saved, used, stated; never tuned on test."""

import json
import random
from pathlib import Path

import pytest

from tests.command_line import run
from tests.tiny import TINY

WORDS = {"spam": ("win", "prize", "cash", "free"), "ham": ("lunch", "home", "later", "meeting")}
TUNED = ("task.tune_threshold=macro_f1", "train.max_steps=12", "train.eval_every=12", "data.seed=3")


def write(file: Path, rows: int, seed: int, *, flipped: bool = False) -> None:
    """Messages of which a sixth are spam, some of them in the words of the others."""
    draw = random.Random(seed)
    lines = ["text,label"]
    for number in range(rows):
        label = "spam" if number % 6 == 0 else "ham"
        words = [draw.choice(WORDS[label if draw.random() < 0.7 else "ham"]) for _ in range(6)]
        shown = {"spam": "ham", "ham": "spam"}[label] if flipped else label
        lines.append(f"{' '.join(words)} {number},{shown}")
    file.write_text("\n".join(lines) + "\n", "utf-8")


def train(folder: Path, *, flipped: bool) -> Path:
    folder.mkdir()
    for name, rows, seed in (("train", 120, 1), ("validation", 60, 2), ("test", 40, 3)):
        write(folder / f"{name}.csv", rows, seed, flipped=flipped and name == "test")
    done = run(*TINY, f"data.source={folder}", "task.max_length=32", *TUNED, "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("tuned") / "data", flipped=False)


def threshold(folder: Path) -> float:
    return float(json.loads((folder / "model" / "task.json").read_text())["facts"]["threshold"])


def test_the_threshold_is_saved_and_predictions_follow_it(tuned: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    write(file, 30, 9)
    done = run("predict", tuned, "--input", file, "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    answers = json.loads(done.stdout)
    for answer in answers:
        assert (answer["label"] == "spam") == (answer["scores"]["spam"] >= threshold(tuned))
        assert answer["score"] == answer["scores"][answer["label"]]


def test_evaluate_gives_the_scores_of_the_run(tuned: Path, tmp_path: Path) -> None:
    for split in ("validation", "test"):
        done = run("evaluate", tuned, "--split", split, "--json", cwd=tmp_path)
        assert done.code == 0, done.stderr
        scores = json.loads((tuned / "metrics.json").read_text())[split]
        assert json.loads(done.stdout)["metrics"]["macro_f1"] == pytest.approx(scores["macro_f1"])


def test_the_card_states_it_with_the_code_that_applies_it(tuned: Path) -> None:
    card = (tuned / "README.md").read_text("utf-8")
    assert f"its probability is at least {threshold(tuned):.4g}" in card
    assert f">= {round(threshold(tuned), 4)} else" in card


@pytest.mark.slow
def test_other_test_labels_change_nothing_of_it(tuned: Path, tmp_path: Path) -> None:
    other = train(tmp_path / "data", flipped=True)
    assert threshold(other) == threshold(tuned)
    file = "model/model.safetensors"
    assert (other / file).read_bytes() == (tuned / file).read_bytes()


def test_more_than_two_classes_are_refused(tmp_path: Path) -> None:
    done = run(*TINY, "task.tune_threshold=mcc", "output_dir=run", cwd=tmp_path)
    assert done.code == 2
    assert "task.tune_threshold: is for rows with one of two classes; label has 3 classes" in done.stderr
    assert not (tmp_path / "run").exists()
