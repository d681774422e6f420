"""Training through the command line: what is in the run folder, and what the folder protects."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import nlp_finetune.recipe as recipes
from nlp_finetune.runs import sealing
from tests.command_line import run
from tests.tiny import TINY


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of twelve steps, evaluated every four."""
    folder = tmp_path_factory.mktemp("train")
    done = run(*TINY, "train.max_steps=12", "train.eval_every=4", "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    return folder / "run"


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_run_folder_holds_what_later_verbs_need(finished: Path) -> None:
    names = {file.name for file in finished.iterdir()}
    assert names >= {"model", "recipe.yaml", "environment.json", "metrics.json", "history.jsonl", "status.json"}
    assert json.loads((finished / "status.json").read_text())["state"] == "finished"


def test_metrics_have_plain_names_an_interval_and_baselines(finished: Path) -> None:
    found = metrics(finished)
    assert set(found) == {"best", "validation", "test", "baselines", "train"}
    low, high = found["test"]["accuracy_ci95"]
    assert low <= found["test"]["accuracy"] <= high
    assert found["validation"]["rows"] == found["test"]["rows"] == 105
    assert found["baselines"]["test"]["tfidf"]["accuracy"] > found["baselines"]["test"]["majority"]["accuracy"]
    assert 0 <= found["train"]["padding_fraction"] < 0.3
    assert found["train"]["steps"] == 12


def check_time_split(figures: dict) -> None:
    split = figures["time_split"]
    assert set(split) == {"data", "forward", "backward", "optimizer", "evaluation", "saving"}
    assert min(split.values()) > 0
    in_steps = sum(split[part] for part in ("data", "forward", "backward", "optimizer"))
    assert in_steps == pytest.approx(figures["seconds"], rel=0.05, abs=0.05)


def test_the_time_split_adds_up_to_the_seconds_of_training_steps(finished: Path) -> None:
    check_time_split(metrics(finished)["train"])


@pytest.mark.parametrize(
    "line",
    [
        "regularize.adversarial=1",
        *(
            pytest.param(f"regularize.{name}", marks=pytest.mark.slow)
            for name in ("r_drop=1", "mixup=0.2", "supervised_contrastive=0.3", "l2_sp=0.01")
        ),
    ],
)
def test_scores_are_of_the_tasks_own_loss_whatever_training_adds_to_it(line: str, tmp_path: Path) -> None:
    done = run(*TINY, "train.max_steps=4", "train.eval_every=4", line, "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    (evaluation,) = [h["validation"] for h in history(tmp_path / "run") if "validation" in h]
    assert metrics(tmp_path / "run")["validation"]["loss"] == pytest.approx(evaluation["loss"], rel=1e-5)


def test_rows_with_several_classes_have_their_thresholds_at_every_evaluation_and_start_at_how_often_each_occurs(
    tmp_path: Path,
) -> None:
    settings = ("data.source=demo:tickets", "train.max_steps=8", "train.eval_every=4", "output_dir=run")
    done = run(*TINY, *settings, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "its outputs start at how often each class occurs" in done.stderr
    evaluations = {h["step"]: h["validation"] for h in history(tmp_path / "run") if "validation" in h}
    best = metrics(tmp_path / "run")["best"]
    assert best["value"] == pytest.approx(evaluations[best["step"]]["f1_micro"])
    assert best["value"] > 0
    rare = run(*TINY, *settings[:-1], "model.head_bias=zero", "output_dir=zero", cwd=tmp_path)
    assert rare.code == 0, rare.stderr
    first = [h["loss"] for folder in ("run", "zero") for h in history(tmp_path / folder) if "loss" in h][::2]
    assert first[0] < first[1]


def test_the_best_step_is_the_best_of_the_history(finished: Path) -> None:
    evaluations = {h["step"]: h["validation"]["accuracy"] for h in history(finished) if "validation" in h}
    assert list(evaluations) == [4, 8, 12]
    best = metrics(finished)["best"]
    assert best["value"] == evaluations[best["step"]] == max(evaluations.values())


def test_history_has_training_losses_with_step_epoch_and_rate(finished: Path) -> None:
    logged = [h for h in history(finished) if "loss" in h]
    assert [h["step"] for h in logged] == [4, 8, 10, 12]
    assert all({"epoch", "grad_norm", "learning_rate"} <= set(h) for h in logged)


def test_the_evidence_behind_the_scores_agrees_with_them(finished: Path) -> None:
    details, found = json.loads((finished / "details.json").read_text()), metrics(finished)
    for split in ("validation", "test"):
        matrix, classes = details[split]["confusion"]["matrix"], details[split]["classes"]
        assert sum(map(sum, matrix)) == found[split]["rows"]
        assert sum(row[i] for i, row in enumerate(matrix)) / 105 == pytest.approx(found[split]["accuracy"])
        assert sum(c["f1"] for c in classes) / len(classes) == pytest.approx(found[split]["macro_f1"])
        lines = [json.loads(line) for line in (finished / "predictions" / f"{split}.jsonl").read_text().splitlines()]
        assert sum(line["score"] * line["weight"] for line in lines) / 105 == pytest.approx(found[split]["accuracy"])
        assert details[split]["row_score"] == {"name": "accuracy", "greater_is_better": True}
        assert sum(group["rows"] for group in details[split]["by_length"]) == 105


def test_suspected_training_rows_are_looked_for_in_a_part_of_them(finished: Path) -> None:
    train = json.loads((finished / "details.json").read_text())["train"]
    assert (train["rows"], train["of"]) == (12 * 16 // 3, 410)
    assert all(one["score"] >= 0.5 and one["label"] != one["predicted"] for one in train["suspects"])


def test_evaluate_gives_the_scores_of_metrics_json(finished: Path) -> None:
    done = run("evaluate", finished, "--json", cwd=finished)
    scores = json.loads(done.stdout)["metrics"]
    expected = {k: v for k, v in metrics(finished)["test"].items() if k != "loss"}
    assert scores == expected


def test_the_model_loads_in_plain_transformers_with_its_label_names(finished: Path) -> None:
    code = (
        "import sys, torch\n"
        "try:\n    import torchvision\n"
        "except Exception:\n"  # a torchvision that cannot be imported breaks transformers' pipelines
        "    sys.modules['torchvision'] = None\n"
        "from transformers import pipeline\n"
        f"pipe = pipeline('text-classification', {str(finished / 'model')!r}, top_k=None)\n"
        "print({part['label']: part['score'] for part in pipe('Not worth the money.')[0]})\n"
        "assert not any(name.startswith('nlp_finetune') for name in sys.modules)\n"
    )
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    done = run("predict", finished, "--text", "Not worth the money.", cwd=finished)
    ours = json.loads(done.stdout)["scores"]
    theirs = eval(plain.stdout.strip().splitlines()[-1])
    assert set(ours) == {"negative", "mixed", "positive"}
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_finished_run_is_left_alone(finished: Path) -> None:
    before = (finished / "metrics.json").stat().st_mtime_ns
    done = run(*TINY, "train.max_steps=12", "train.eval_every=4", f"output_dir={finished}", cwd=finished)
    assert done.code == 0
    assert "already finished" in done.stdout
    assert (finished / "metrics.json").stat().st_mtime_ns == before


def test_another_recipe_is_refused_with_what_differs(finished: Path) -> None:
    done = run(*TINY, "train.max_steps=13", "train.eval_every=4", f"output_dir={finished}", cwd=finished)
    assert done.code == 2
    assert "train.max_steps: 12 -> 13" in done.stderr


def test_the_saved_recipe_replays_the_run_bit_for_bit(finished: Path, tmp_path: Path) -> None:
    done = run("--recipe", finished / "recipe.yaml", "output_dir=again", cwd=tmp_path)
    assert done.code == 0, done.stderr
    one, two = (load_file(f / "model" / "model.safetensors") for f in (finished, tmp_path / "again"))
    assert all((one[name] == two[name]).all() for name in one)


def test_both_engines_give_the_same_run(finished: Path, tmp_path: Path) -> None:
    done = run(
        *TINY, "train.max_steps=12", "train.eval_every=4", "train.engine=accelerate", "output_dir=run", cwd=tmp_path
    )
    assert done.code == 0, done.stderr
    other = metrics(tmp_path / "run")
    assert {k: other[k] for k in ("best", "validation", "test")} == {
        k: metrics(finished)[k] for k in ("best", "validation", "test")
    }


def test_predictions_in_bf16_are_near_those_in_fp32(finished: Path) -> None:
    ask = ("predict", finished, "--text", "Not worth the money.")
    exact, rounded = (json.loads(run(*ask, "--precision", p, cwd=finished).stdout)["scores"] for p in ("fp32", "bf16"))
    assert exact != rounded
    assert rounded == pytest.approx(exact, abs=0.05)


def test_the_command_to_paste_predicts_for_pairs_too(tmp_path: Path) -> None:
    done = run(*TINY, "data.source=demo:pairs", "train.max_steps=2", "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    command = next(line for line in done.stdout.splitlines() if "predict" in line and "--text" in line)
    words = shlex.split(command)
    assert words.count("--text") == 2
    pasted = run(*words[words.index("predict") :], cwd=tmp_path)
    assert pasted.code == 0, pasted.stderr
    assert set(json.loads(pasted.stdout)["scores"]) == {"entailment", "neutral", "contradiction"}


def test_patience_stops_early(tmp_path: Path) -> None:
    # A learning rate of almost nothing: the first evaluation stays the best.
    done = run(
        *TINY, "train.max_steps=30", "train.eval_every=2", "train.patience=2", "optim.learning_rate=1e-12",
        "output_dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert "early stopping at step 6" in done.stderr
    assert metrics(tmp_path / "run")["train"]["steps"] == 6
    assert metrics(tmp_path / "run")["best"]["step"] == 2


def test_fine_tuning_goes_on_from_a_run(finished: Path, tmp_path: Path) -> None:
    done = run(
        "--recipe", "text_cls", f"model.checkpoint={finished}", "data.source=demo:reviews", "train.max_steps=2",
        "task.max_length=32", "output_dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert "new head" not in done.stderr


def test_weights_that_no_longer_exist_are_not_evaluated(finished: Path) -> None:
    assert list((finished / "checkpoints").glob("best-*")) == []
    assert sealing.fault(finished / "checkpoints" / "step-12") is None


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
@pytest.mark.parametrize("name", sorted(recipes.shipped()))
def test_every_shipped_recipe_has_a_demo_that_runs(name: str, engine: str, tmp_path: Path) -> None:
    done = run(
        "--recipe", name, "--demo", "train.max_steps=4", f"train.engine={engine}", "output_dir=run", cwd=tmp_path
    )
    assert done.code == 0, done.stderr
    figures = metrics(tmp_path / "run")["train"]
    assert figures["steps"] == 4
    check_time_split(figures)
    assert set(json.loads((tmp_path / "run" / "details.json").read_text())) >= {"validation"}, done.stderr
