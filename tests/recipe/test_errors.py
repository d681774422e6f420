"""What is said about a wrong recipe: everything at once, where it is, and what was meant."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from nlp_finetune.recipe import Loaded

Refusal = Callable[..., str]


def test_all_problems_are_said_at_once(refusal: Refusal, minimal: str) -> None:
    text = minimal + "optim:\n  learning_rat: 1\ntrain: {engine: trainr, epochs: 0}\ndemo: {train.sed: 1}\n"
    message = refusal(text, "loss.gamma=3", "task.max_length=2", "nonsense")
    assert "has 7 problems:" in message
    lines = message.splitlines()[1:]
    assert any("optim.learning_rat (" in line and "example.yaml:6" in line for line in lines)
    assert any("train.engine (" in line and "example.yaml:7" in line for line in lines)
    assert any("train.epochs (" in line and "above 0" in line for line in lines)
    assert any("train.sed (" in line and "example.yaml:8, demo" in line for line in lines)
    assert any("loss.gamma (command line)" in line and "focal" in line for line in lines)
    assert any("task.max_length (command line)" in line and "at least 4" in line for line in lines)
    assert any("nonsense (command line)" in line and "key=value" in line for line in lines)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optim.learning_rat=1", "did you mean 'learning_rate'?"),
        ("optim.lr=1", "did you mean 'learning_rate'?"),
        ("train.learning_rate=1", "learning_rate belongs to optim"),
        ("learning_rate=1", "learning_rate belongs to optim"),
        ("tokenizer=x", "tokenizer belongs to model"),
        ("model.revison=x", "did you mean 'revision'?"),
        ("num_train_epochs=3", "belongs to train, where it is called epochs"),
        ("train.output_dir=x", "output_dir belongs to the top of the recipe"),
        ("trian.epochs=3", "did you mean 'train.epochs'?"),
        ("peft.rank=8", "unknown key; a recipe has name, description, task"),
        ("optim.zzz=1", "unknown key; optim has name, learning_rate"),
        ("train.seed.x=1", "train.seed has no keys of its own"),
        ("name.x=1", "name has no keys of its own"),
        ("optim..=1", "unknown key"),
        ("task.maxlength=64", "did you mean 'max_length'?"),
        ("task.name=sortin", "no task is called 'sortin'; tasks: sorting; did you mean 'sorting'?"),
        ("train.engine=acelerate", "takes 'trainer' or 'accelerate'; did you mean 'accelerate'?"),
        ("task.on_long=trunc", "takes 'truncate' or 'error'"),
        ("train.batch_size=0", "0 is not valid; it takes a whole number at least 1"),
        ("train.batch_size=2.5", "2.5 is not valid; it takes a whole number at least 1"),
        ("train.batch_size=true", "true is not valid"),
        ("train.bucket=yes", '"yes" is not valid; it takes true or false'),
        ("train.bucket=1", "1 is not valid; it takes true or false"),
        ("train.micro_batch_size=-1", "a whole number at least 1 or 'auto'"),
        ("train.eval_every=epochs", "did you mean 'epoch'?"),
        ("train.epochs=.inf", "not valid"),
        ("train.seed=99999999999", "below 4294967296"),
        ("data.validation_fraction=1", "a number above 0 and below 1"),
        ("model.dropout=1.0", "a number at least 0 and below 1, or null"),
        ("optim.warmup=1.5", "a whole number at least 0, or a number"),
        ("model.head_init=xaver", "did you mean 'xavier'?"),
        ("model.checkpoint=null", "null is not valid; it takes text"),
        ("model.config=5", "5 is not valid; it takes a mapping"),
        ("loss.class_weights.spam=-1", "it takes 'balanced', a mapping to a number at least 0 or null"),
        ("loss.class_weights=balancd", "did you mean 'balanced'?"),
        ("optim.nesterov=true", "adamw does not use it; it needs optim.name: sgd"),
        ("optim.decay=0.5", "linear does not use it; it needs optim.schedule: warmup_stable_decay"),
        ("task.text=[a, b, c]", "takes a list of 1 to 2 texts or null"),
        ("data.columns=[a", "not valid YAML"),
        ("data.columns=[]", "not valid"),
        ("output_dir=''", "is empty"),
        ("name=my recipe", "text matching"),
        ("optim=5", "is a section of keys; did you mean optim.name: 5?"),
        ("train=5", "is a section with the keys engine, epochs"),
        ("demo.train.epochs=1", "changed in the recipe's file"),
        ("train.epochs", "an override is written key=value"),
        ("=3", "an override is written key=value"),
    ],
)
def test_a_wrong_override_is_explained(refusal: Refusal, minimal: str, override: str, says: str) -> None:
    message = refusal(minimal, override)
    assert says in message
    assert "(command line)" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["loss.name=bce", "loss.label_smoothing=0.1"], "needs loss.name: cross_entropy"),
        (["loss.label_smoothing=0.1"], "auto does not use it"),
        (["loss.name=mse", "loss.gamma=1"], "needs loss.name: focal"),
        (["optim.momentum=0.9"], "needs optim.name: sgd or rmsprop"),
        (["optim.name=sgd", "optim.beta1=0.8"], "needs optim.name: adamw or adam"),
        (["optim.name=sgd", "optim.epsilon=1e-6"], "needs optim.name: adamw or adam or adamw_8bit or rmsprop"),
        (["train.micro_batch_size=64", "train.batch_size=32"], "larger than train.batch_size, which is 32"),
        (["data.source=null"], "data.source (command line): needed"),
        (["data.test=mine.csv"], "data.source (cleared by data.test (command line)): needed"),
    ],
)
def test_keys_that_would_be_ignored_or_contradict_are_refused(
    refusal: Refusal,
    minimal: str,
    overrides: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert says in refusal(minimal, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.name=cross_entropy", "loss.label_smoothing=0.1"],
        ["loss.name=focal", "loss.gamma=1"],
        ["optim.name=sgd", "optim.momentum=0.9"],
        ["optim.name=rmsprop", "optim.epsilon=1e-6"],
        ["loss.name=mse", "loss.gamma=2.0"],
    ],
)
def test_keys_that_the_choice_honours_are_accepted(
    read: Callable[..., Loaded], minimal: str, overrides: list[str]
) -> None:
    section = overrides[0].split(".")[0]
    assert getattr(read(minimal, *overrides).recipe, section).name == overrides[0].split("=")[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- a\n- b\n", "must be a mapping"),
        ("just words\n", "must be a mapping"),
        ("name: x\nmodel: {checkpoint: y}\ndata: {source: z}\n", "task.name (example.yaml): required"),
        ("task: {name: sorting}\ndata: {source: z}\n", "model.checkpoint (example.yaml): required"),
        (
            "task: {name: sorting}\nmodel: {revision: r}\ndata: {source: z}\n",
            "model.checkpoint (example.yaml:2)",
        ),
        ("task: {name: sorting}\nmodel: {checkpoint: r}\n", "data.source (example.yaml): needed"),
        ("task: sorting\nmodel: {checkpoint: r}\ndata: {source: z}\n", "did you mean task.name: sorting?"),
    ],
)
def test_a_file_that_lacks_something_is_refused(
    refusal: Refusal, text: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert says in refusal(text)


def test_a_demo_that_a_recipe_does_not_have_is_refused(refusal: Refusal, minimal: str) -> None:
    assert "--demo has nothing to apply" in refusal(minimal, demo=True)


def test_a_key_set_twice_is_refused_with_both_lines(refusal: Refusal, minimal: str) -> None:
    message = refusal(minimal + "train:\n  seed: 1\n  seed: 2\n")
    assert "example.yaml:7" in message
    assert "set twice, first in line 6" in message


def test_a_key_set_both_nested_and_dotted_is_refused(refusal: Refusal, minimal: str) -> None:
    assert "set twice" in refusal(minimal + "train: {seed: 1}\ntrain.seed: 2\n")


def test_a_misspelt_required_key_is_one_problem(refusal: Refusal, minimal: str) -> None:
    message = refusal(minimal.replace("checkpoint:", "chekpoint:"))
    assert "did you mean 'checkpoint'?" in message
    assert len(message.splitlines()) == 1


def test_a_file_that_is_not_text_is_refused(read: Callable[..., Loaded], tmp_path: object) -> None:
    from pathlib import Path

    from nlp_finetune.errors import InputError
    from nlp_finetune.recipe import load

    path = Path(str(tmp_path)) / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
        load(str(path), task_options=dict.__getitem__, task_names=[])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("augment.synonym=0.1", "augment.synonym (command line): needs augment.synonym_table"),
        (
            "augment.synonym_table=a.tsv",
            "augment.synonym_table (command line): only used with augment.synonym or augment.insert",
        ),
        ("augment.probability=0.5", "augment.probability (command line): nothing is changed"),
        ("augment.delete=1.5", "a number at least 0 and below 1"),
        ("augment.crop=[1.0, 0.2]", "the least comes first"),
        ("augment.crop=[0.5, 1] augment.padded_crop=4", "augment.padded_crop (command line): not together with crop"),
        ("augment.trivial_augment=true augment.rand_augment=9", "not together with trivial_augment: choose one"),
    ],
)
def test_ways_of_changing_rows_that_would_do_nothing_are_refused(
    setting: str, says: str, minimal: str, refusal: Refusal
) -> None:
    assert says in refusal(minimal, *re.split(" (?=augment)", setting))
