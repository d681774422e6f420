"""Choices that only the data can judge are judged before training, through the command line."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.command_line import run
from tests.tiny import TINY


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("loss.class_weights.positiv=2", "no class is called 'positiv'; did you mean 'positive'?"),
        ("model.head_bias=prior data.source=demo:similarity task.problem=regression", "has no classes here; use auto."),
        ("loss.name=bce", "loss.name bce does not fit these labels; use cross_entropy or focal."),
        ("train.metric=macro_f", "did you mean macro_f1?"),
        ("optim.name=adamw_8bit", "adamw_8bit needs a GPU"),
        ("regularize.l2_sp=1 lora.rank=4", "with lora the pretrained weights stay as they are"),
        ("regularize.r_drop=1 data.source=demo:similarity task.problem=regression", "has no classes here whose scores"),
        ("train.compact_vocabulary=on optim.name=adafactor", "adafactor looks at the table as a whole"),
        ("train.compact_vocabulary=on lora.rank=4", "word embeddings are not trained"),
        (
            "regularize.supervised_contrastive=1 data.source=demo:similarity task.problem=regression",
            "has no one class a row here",
        ),
        ("regularize.temperature=0.1", "needs regularize.supervised_contrastive above 0"),
        ("regularize.supervised_contrastive=1 train.micro_batch_size=1", "compares the rows of a micro batch"),
        ("regularize.cutmix=1", "regularize.cutmix: for images, and text_classification has none here."),
        (
            "data.sampler=balanced data.source=demo:similarity task.problem=regression",
            "data.sampler balanced: text_classification has no one class a row here; use shuffled.",
        ),
        ("data.sampler=balanced loss.class_weights=balanced", "corrects the same again; choose one"),
        ("regularize.mixup=1 regularize.r_drop=1", "not together with r_drop, which takes rows for what they are"),
        ("train.max_tokens=20", "train.max_tokens 20: the longest training row has 32 tokens"),
        ("train.max_tokens=64 regularize.supervised_contrastive=1", "compares the rows of a micro batch"),
        ("regularize.r_drop=1 regularize.adversarial=1", "not together with r_drop"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused_before_training(choice: str, says: str, tmp_path: Path) -> None:
    done = run("train", *TINY, *choice.split(), f"output_dir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.code == 2
    assert says in done.stderr
    assert not (tmp_path / "run").exists()


def test_balanced_weights_are_counted_and_said(tmp_path: Path) -> None:
    settings = ("loss.class_weights=balanced", "train.max_steps=2", f"output_dir={tmp_path / 'run'}")
    done = run("train", *TINY, *settings, cwd=tmp_path)
    assert done.code == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "class weights" in line]
    assert "loss cross_entropy, class weights: " in line
    assert all(name in line for name in ("negative", "mixed", "positive"))


def test_the_compact_vocabulary_is_said_and_the_saved_model_has_the_whole_table(tmp_path: Path) -> None:
    settings = ("data.limit=40", "train.max_steps=2", f"output_dir={tmp_path / 'run'}")
    done = run("train", *TINY, *settings, cwd=tmp_path)
    assert done.code == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "compact vocabulary" in line]
    assert "rows of the embedding table and trains those" in line
    saved = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert saved["bert.embeddings.word_embeddings.weight"].shape == (600, 32)


def test_a_budget_of_tokens_is_refused_where_rows_are_mixed_with_longer_ones(tmp_path: Path) -> None:
    done = run("train", *TINY, "regularize.mixup=0.2", "train.max_tokens=400", "output_dir=run", cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert "with regularize.mixup a row is as long as the longer of two" in done.stderr
    assert not (tmp_path / "run").exists()
