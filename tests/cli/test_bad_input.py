"""What wrong input gets: one clear message, exit code 2, no traceback, nothing written."""

import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import run
from tests.tiny import TINY

GOOD = "text,label\n" + "".join(f"some words number {i} here,{'ab'[i % 2]}\n" for i in range(20))


def text_file(name: str, content: str | bytes) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data) and None


def other_run(folder: Path) -> None:
    (folder / "taken").mkdir()
    (folder / "taken" / "thesis.txt").write_text("do not overwrite")


def no_checkpoint(folder: Path) -> None:
    (folder / "empty_model").mkdir()
    (folder / "empty_model" / "notes.txt").write_text("nothing here")


def small_embedding(folder: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertForSequenceClassification(config).save_pretrained(folder / "small")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(200))]
    (folder / "small" / "vocab.txt").write_text("\n".join(words))


def config_of(model_type: str) -> Callable[[Path], None]:
    """A folder with the configuration of a family, as a Hub checkpoint would have it."""

    def write(folder: Path) -> None:
        (folder / "m").mkdir()
        (folder / "m" / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 40000}))

    return write


def unwritable(folder: Path) -> None:
    (folder / "a_file").write_text("")


NOWHERE = "data.source=nobody/no-such-data"
"""Data on a Hub that can't be reached here: whoever tried to fetch them would say so."""

CASES: dict[str, tuple[Callable[[Path], None] | None, list[str], str]] = {
    # name: (what is there, arguments, what the message must say)
    "missing file": (None, ["data.source=nowhere.csv"], r"nowhere\.csv"),
    "empty file": (text_file("d.csv", ""), ["data.source=d.csv"], "empty"),
    "header only": (text_file("d.csv", "text,label\n"), ["data.source=d.csv"], "no (data )?rows|header"),
    "wrong text column": (
        text_file("d.csv", GOOD),
        ["data.source=d.csv", "task.text=[body]"],
        "no column 'body'.*text, label",
    ),
    "wrong label column": (text_file("d.csv", GOOD), ["data.source=d.csv", "task.label=klass"], "no column 'klass'"),
    "one class only": (
        text_file("d.csv", "text,label\nx y,a\nz w,a\nq r,a\n"),
        ["data.source=d.csv"],
        "only one class",
    ),
    "label missing in some rows": (text_file("d.csv", "text,label\nx,a\ny,\nz,b\n"), ["data.source=d.csv"], "row 2"),
    "mixed types": (
        text_file("d.jsonl", '{"text": "x", "label": 1}\n{"text": "y", "label": "b"}\n'),
        ["data.source=d.jsonl"],
        "label",
    ),
    "NaN text": (
        text_file("d.jsonl", '{"text": "x", "label": "a"}\n{"text": null, "label": "b"}\n'),
        ["data.source=d.jsonl"],
        "row 2",
    ),
    "binary file": (text_file("d.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), ["data.source=d.csv"], "not a text file"),
    "broken UTF-8": (
        text_file("d.csv", GOOD.encode() + b"caf\xff\xfe\x81 odd,a\n"),
        ["data.source=d.csv"],
        "encoding|byte",
    ),
    "broken JSON line": (
        text_file("d.jsonl", '{"text": "x", "label": "a"}\n{"text": "y", \n'),
        ["data.source=d.jsonl"],
        "line 2",
    ),
    "gzip that is none": (text_file("d.csv.gz", GOOD), ["data.source=d.csv.gz"], "gz"),
    "odd number of cells": (text_file("d.csv", GOOD + "a,b,c,d\n"), ["data.source=d.csv"], "line 22"),
    "number of classes": (
        text_file("d.csv", "text,label\n" + "".join(f"t {i},id{i}\n" for i in range(300))),
        ["data.source=d.csv"],
        "300 different values",
    ),
    "ERNIE-M, before the data": (
        config_of("ernie_m"),
        [NOWHERE, "model.checkpoint=m"],
        "ernie_m is gone from transformers 5. Choose a checkpoint of another family",
    ),
    "an unknown architecture, before the data": (
        config_of("bertt"),
        [NOWHERE, "model.checkpoint=m"],
        "transformers has no model type 'bertt'. Did you mean bert",
    ),
    "a family without the task's head, before the data": (
        config_of("vit"),
        [NOWHERE, "model.checkpoint=m", "model.config={}", "model.tokenizer=null"],
        "model type vit has no AutoModelForSequenceClassification, which this task needs; it has AutoModelForImage",
    ),
    "data that can't be reached": (None, [NOWHERE], "nobody/no-such-data"),
    "unknown key": (None, ["optim.learning_rat=1e-3"], "did you mean.*learning_rate"),
    "unknown section": (None, ["optimiser.lr=1"], "optimiser"),
    "wrong value": (None, ["train.engine=deepspeed"], "trainer.*accelerate"),
    "wrong type": (None, ["train.epochs=many"], r"train\.epochs"),
    "out of range": (None, ["optim.learning_rate=-1"], r"optim\.learning_rate"),
    "unused key": (None, ["optim.momentum=0.9"], "momentum"),
    "unknown task": (None, ["task.name=text_clasification"], "did you mean.*text_classification"),
    "unknown extra": (None, ["train.extra={group_by_lenght: true}"], "group_by_lenght"),
    "extra that is ours": (None, ["train.extra={num_train_epochs: 3}"], r"train\.epochs"),
    "extra that the engine ignores": (
        None,
        ["train.engine=accelerate", "train.extra={neftune_noise_alpha: 5}"],
        "accelerate engine does not honour",
    ),
    "loss that does not fit": (None, ["loss.name=mse"], "does not fit.*cross_entropy"),
    "precision that does not fit": (None, ["train.precision=fp16"], "fp16 needs a GPU"),
    "metric that is unknown": (None, ["train.metric=acuracy"], "acuracy"),
    "folder that is no checkpoint": (no_checkpoint, ["model.checkpoint=./empty_model"], r"config\.json"),
    "checkpoint that does not exist": (None, ["model.checkpoint=./nowhere"], "nowhere"),
    "package that is not installed": (None, ["model.checkpoint=pkg:no_such_package/model"], "pip install"),
    "unknown family": (None, ["model.checkpoint=scratch:bertt"], "(?i)did you mean.*bert"),
    "Hub unreachable": (None, ["model.checkpoint=someone/some-model"], "--demo|cache|local"),
    "vocabulary larger than the embedding": (
        small_embedding,
        ["model.checkpoint=./small", "model.tokenizer=null", "model.config={}"],
        "embedding",
    ),
    "rows longer than the model's positions": (None, ["task.max_length=65"], r"task\.max_length 65.*64 positions"),
    "output folder that holds something else": (other_run, ["output_dir=taken"], "not empty"),
    "output folder that cannot be written": (unwritable, ["output_dir=a_file/run"], "cannot be written"),
    "batch smaller than the micro batch": (None, ["train.micro_batch_size=64"], "micro_batch_size"),
}


def listing(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_one_message_and_exit_code_2(name: str, tmp_path: Path) -> None:
    prepare, arguments, expected = CASES[name]
    if prepare is not None:
        prepare(tmp_path)
    before = listing(tmp_path)
    done = run(*TINY, "train.max_steps=2", *arguments, cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr[done.stderr.index("error: ") :]
    assert re.search(expected, message, re.DOTALL), message
    assert done.stderr.count("error: ") == 1
    assert listing(tmp_path) == before


def test_an_unknown_recipe_gets_a_suggestion(tmp_path: Path) -> None:
    done = run("--recipe", "text_clss", cwd=tmp_path)
    assert done.code == 2
    assert "text_cls" in done.stderr


LABELS = "text,label\n" + "".join(f"some words {i},{'ab'[i % 2]}\n" for i in range(30))

FINE: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    # name: (what is there, arguments, the line that says it)
    "a class with one row": (text_file("d.csv", LABELS + "odd one,c\n"), ["data.source=d.csv"], "c"),
    "very long rows": (
        text_file("d.csv", LABELS + f"{'word ' * 5000},a\n"),
        ["data.source=d.csv"],
        "of tokens lost at 32",
    ),
    "a test file without labels": (
        lambda f: (f / "tr.csv").write_text(LABELS) and (f / "te.csv").write_text("text\nx y\n") and None,
        ["data.train=tr.csv", "data.test=te.csv"],
        "test: no labels",
    ),
    "a batch larger than the data": (
        text_file("d.csv", LABELS),
        ["data.source=d.csv", "train.batch_size=500"],
        "train.batch_size 500 exceeds the data",
    ),
    "another encoding": (
        text_file("d.csv", LABELS.replace("words", "Wörter schön für alle, ").replace(", ", " ").encode("utf-16")),
        ["data.source=d.csv"],
        "UTF-16",
    ),
    "a compressed file": (
        lambda f: (f / "d.csv.gz").write_bytes(gzip.compress(LABELS.encode(), mtime=0)) and None,
        ["data.source=d.csv.gz"],
        "2 classes",
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_odd_but_usable_input_is_said_in_a_line(name: str, tmp_path: Path) -> None:
    prepare, arguments, expected = FINE[name]
    prepare(tmp_path)
    done = run(*TINY, "train.max_steps=2", "output_dir=run", *arguments, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert expected in done.stderr


def test_a_head_with_other_labels_is_aligned_by_name(tmp_path: Path) -> None:
    (tmp_path / "ab.csv").write_text(LABELS)
    (tmp_path / "abc.csv").write_text(LABELS + "third kind,c\nthird too,c\n")
    first = run(*TINY, "train.max_steps=2", "data.source=ab.csv", "output_dir=one", cwd=tmp_path)
    assert first.code == 0, first.stderr
    second = run(
        "--recipe", "text_cls", "model.checkpoint=one", "data.source=abc.csv", "task.max_length=32",
        "train.max_steps=2", "output_dir=two", cwd=tmp_path,
    )  # fmt: skip
    assert second.code == 0, second.stderr
    assert "c" in json.loads((tmp_path / "two" / "model" / "config.json").read_text())["label2id"]
    said = [line for line in second.stderr.splitlines() if "head" in line]
    assert said, second.stderr


@pytest.mark.skipif(os.name != "posix", reason="the command line of a shell")
def test_help_and_verbs_are_listed(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.code == 0
    assert all(verb in done.stdout for verb in ("train", "check", "show", "list", "schema", "evaluate", "predict"))


def test_a_family_without_the_head_is_refused_before_data_are_fetched(tmp_path: Path) -> None:
    done = run(
        "--recipe", "text_cls", "model.checkpoint=scratch:vits", "data.source=someone/not-reachable", cwd=tmp_path
    )
    assert done.code == 2
    assert "has no AutoModelForSequenceClassification" in done.stderr
