"""Training from what frozen layers made of each row once is training with them, for every family and both engines."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nlp_finetune.engines  # noqa: F401  before the first import of transformers
from nlp_finetune import build as building
from nlp_finetune import prefix_cache
from nlp_finetune.engines import hf_trainer, loop
from nlp_finetune.errors import InputError
from nlp_finetune.learning.flow import Flow
from nlp_finetune.learning.shortcut import Form, WithStates
from nlp_finetune.preparation import Prepared, prepare
from nlp_finetune.recipe import load
from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.runtime import Runtime
from nlp_finetune.stopping import StopRequest
from nlp_finetune.tasks import base
from tests.command_line import run
from tests.models.conftest import SIZES
from tests.tiny import TINY

HERE = Runtime(0, 1, 0, 1, torch.device("cpu"), 1)
ENGINES = {"trainer": hf_trainer.fit, "accelerate": loop.fit}
TEXT = (
    "model.tokenizer=train", "data.source=demo:reviews", "data.limit=40", "task.max_length=32", "train.batch_size=8",
    "train.epochs=2", "optim.learning_rate=1e-3", "train.log_every=1", "model.dropout=0.1", "train.precision=fp32",
)  # fmt: skip
IMAGES = (
    "model.checkpoint=scratch:resnet18", "data.source=demo:digits", "data.limit=24", "task.size=32",
    "augment.horizontal_flip=0", "augment.crop=null", "train.batch_size=8", "train.epochs=2", "train.log_every=1",
    "train.workers=0",
    "model.config={embedding_size: 8, hidden_sizes: [8, 16], depths: [1, 1], layer_type: basic}",
    "optim.learning_rate=1e-2", "train.precision=fp32",
)  # fmt: skip


@dataclass
class Run:
    """What a run was like: its losses and scores step by step, its weights, and what it said."""

    losses: list[float]
    scores: list[dict[str, float]]
    weights: dict[str, torch.Tensor]
    said: list[str]
    cached: Any


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of cached data for each test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return tmp_path / "datasets" / "nlp_finetune" / "frozen"


def prepared(*overrides: str, recipe: str = "text_cls") -> Prepared:
    loaded = load(recipe, overrides=overrides, task_options=base.options_of, task_names=base.names())
    return prepare(loaded.recipe, HERE, tell=lambda line: None)


def of_family(family: str, *more: str) -> Prepared:
    sizes = ", ".join(
        f"{key}: {str(value).lower() if value is True else value}" for key, value in SIZES[family].items()
    )
    return prepared(
        f"model.checkpoint=scratch:{family}", f"model.config={{{sizes}, vocab_size: 400}}", *TEXT, *more
    )  # fmt: skip


def fit(given: Prepared, folder: Path, monkeypatch: pytest.MonkeyPatch, **freeze: Any) -> Run:
    """Train as the recipe says, with `freeze` changed."""
    section = given.recipe.freeze.model_copy(update=freeze)
    given = replace(given, recipe=given.recipe.model_copy(update={"freeze": section}))
    said: list[str] = []
    monkeypatch.setattr(building, "say", said.append)
    torch.manual_seed(0)
    made = building.build(given, RunFolder(folder), HERE, StopRequest(), about={})
    job = made.job
    # What evaluates and logs is all that counts here: nothing is written.
    job.callbacks = [c for c in job.callbacks if isinstance(c, Flow) or type(c).__name__ in ("RankSeed", "Thawing")]
    fitted = ENGINES[given.recipe.train.engine](job)
    history = fitted.state.log_history
    return Run(
        [line["loss"] for line in history if "loss" in line],
        [line for line in history if "eval_loss" in line],
        {name: tensor.detach().clone() for name, tensor in fitted.model.state_dict().items()},
        said,
        made.cache,
    )


def assert_same(one: Run, other: Run) -> None:
    """Equal but for rounding: the cache was filled in batches that were padded to other lengths."""
    assert one.losses == pytest.approx(other.losses, rel=1e-4)
    for name, tensor in one.weights.items():
        torch.testing.assert_close(tensor, other.weights[name], rtol=2e-3, atol=2e-5)
    assert [line["eval_loss"] for line in one.scores] == pytest.approx(
        [line["eval_loss"] for line in other.scores], rel=1e-4
    )


FREEZE: dict[str, dict[str, Any]] = {"a block": {"layers": 1}, "all but the head": {"except": "head"}}
FAMILIES = ("bert", "roberta", "ernie", "gpt2")
MORE = ("electra", "distilbert", "deberta-v2", "modernbert", "albert")


def compare(family: str, frozen: str, engine: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [f"freeze.{key}={value}" for key, value in FREEZE[frozen].items()]
    given = of_family(family, *settings, f"train.engine={engine}")
    plain = fit(given, folder / "off", monkeypatch, cache="off")
    short = fit(given, folder / "on", monkeypatch, cache="on")
    assert plain.cached is None
    assert short.cached is not None
    assert any(line.startswith("frozen layers cached: ") for line in short.said)
    assert_same(short, plain)


@pytest.mark.parametrize("frozen", FREEZE)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_as_without_the_cache(
    family: str, frozen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = "accelerate" if frozen == "a block" else "trainer"
    compare(family, frozen, engine, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", FREEZE)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_other_engine_does_too(family: str, frozen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = "trainer" if frozen == "a block" else "accelerate"
    compare(family, frozen, engine, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("family", MORE)
def test_further_families_train_as_without_the_cache(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(family, "all but the head", "accelerate", tmp_path, monkeypatch)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("frozen", FREEZE)
def test_a_resnet_with_fixed_transforms_trains_as_without_the_cache(
    frozen: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"freeze.{key}={value}" for key, value in FREEZE[frozen].items()]
    given = prepared(*IMAGES, *settings, f"train.engine={engine}", recipe="image_cls")
    plain = fit(given, tmp_path / "off", monkeypatch, cache="off")
    short = fit(given, tmp_path / "on", monkeypatch, cache="on")
    assert_same(short, plain)
    assert short.cached.prefix.blocks == (1 if frozen == "a block" else 2)


@pytest.fixture
def bert() -> Prepared:
    return of_family("bert", "freeze.layers=1")


def test_frozen_layers_run_neither_in_training_nor_in_its_evaluations(bert: Prepared, tmp_path: Path) -> None:
    made = building.build(bert, RunFolder(tmp_path), HERE, StopRequest(), about={})
    job = made.job
    job.callbacks = [c for c in job.callbacks if isinstance(c, Flow)]
    assert isinstance(job.collate, WithStates)
    runs: list[str] = []
    for number, block in enumerate(job.model.bert.encoder.layer):
        block.attention.register_forward_hook(lambda *_, number=number: runs.append(number))
    loop.fit(job)
    assert set(runs) == {1}


def test_a_second_run_reads_what_the_first_has_computed_and_other_weights_do_not(
    bert: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    first = fit(bert, tmp_path / "1", monkeypatch)
    files = {folder.name for folder in own_cache.iterdir()}
    second = fit(bert, tmp_path / "2", monkeypatch)
    assert {folder.name for folder in own_cache.iterdir()} == files
    assert any("were run once" in line for line in second.said)
    assert first.losses == second.losses
    seed = bert.recipe.train.model_copy(update={"seed": 99})  # other weights from scratch
    fit(replace(bert, recipe=bert.recipe.model_copy(update={"train": seed})), tmp_path / "3", monkeypatch)
    assert len({folder.name for folder in own_cache.iterdir()} - files) == 2


@pytest.mark.parametrize("change", ["data", "precision", "depth"])
def test_what_the_states_depend_on_is_in_their_name(change: str, bert: Prepared) -> None:
    model = building._model(bert, RunFolder("unused"))
    prefix = prefix_cache.find(model)[-1]
    form = Form(True, torch.float32)
    found = prefix_cache.Found(prefix, None, form, 64, 1.0)
    before = prefix_cache._digest(bert, "train", model, found, "fp32", HERE)
    assert before == prefix_cache._digest(bert, "train", model, found, "fp32", HERE)
    if change == "data":
        bert = replace(bert, digests={**bert.digests, "train": "other"})
    elif change == "depth":
        found = replace(found, prefix=replace(prefix, name="bert.encoder.layer.1"))
    other = prefix_cache._digest(bert, "train", model, found, "bf16" if change == "precision" else "fp32", HERE)
    assert other != before


def test_a_frozen_weight_that_changes_changes_the_name(bert: Prepared) -> None:
    model = building._model(bert, RunFolder("unused"))
    found = prefix_cache.Found(prefix_cache.find(model)[-1], None, Form(True, torch.float32), 64, 1.0)
    before = prefix_cache._digest(bert, "train", model, found, "fp32", HERE)
    with torch.no_grad():
        model.classifier.weight.add_(1.0)  # trains: no part of the prefix
    assert prefix_cache._digest(bert, "train", model, found, "fp32", HERE) == before
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.bias[3] += 1e-6
    assert prefix_cache._digest(bert, "train", model, found, "fp32", HERE) != before


@pytest.mark.parametrize(
    ("settings", "freeze", "reason"),
    [
        (("freeze.layers=1",), {"cache_limit_gb": 1e-7}, "would exceed freeze.cache_limit_gb"),
        (("freeze.layers=1", "train.epochs=1"), {}, "the run sees its rows 1 times"),
        (("freeze.layers=1", "regularize.neftune=5"), {}, "changes word embeddings at random"),
        (("freeze.patterns=['*.layer.0.*']",), {"cache": "on"}, "no block is frozen together with the embeddings"),
    ],
)
def test_what_is_not_cached_trains_all_the_same_and_says_why(
    settings: tuple[str, ...], freeze: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = of_family("bert", *settings)
    if freeze.get("cache") == "on":
        with pytest.raises(InputError, match=rf"freeze.cache on: {reason}"):
            fit(given, tmp_path, monkeypatch, **freeze)
        return
    done = fit(given, tmp_path, monkeypatch, **freeze)
    assert done.cached is None
    assert done.losses
    assert [line for line in done.said if line.startswith("frozen layers are not cached: ") and reason in line]


def test_a_family_whose_blocks_hand_on_more_than_states_is_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = fit(of_family("t5", "freeze.layers=1"), tmp_path, monkeypatch)
    assert done.cached is None
    assert any("does not give the same loss and gradients" in line for line in done.said)


def test_images_that_are_cropped_at_random_are_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = prepared(*IMAGES, "augment.crop=[0.5, 1.0]", "freeze.layers=1", recipe="image_cls")
    done = fit(given, tmp_path, monkeypatch)
    assert any("rows are changed at random in each epoch" in line for line in done.said)


def test_layers_that_thaw_do_so_above_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = of_family("bert", "freeze.layers=1", "freeze.gradual=3")
    plain = fit(given, tmp_path / "off", monkeypatch, cache="off")
    assert_same(fit(given, tmp_path / "on", monkeypatch, cache="on"), plain)


@pytest.mark.slow
def test_a_run_from_the_command_line_saves_the_whole_model_and_says_what_was_cached(tmp_path: Path) -> None:
    import json

    settings = (*TINY, "model.dropout=0.1", "freeze.layers=1", "train.epochs=2", "train.log_every=1")
    found = {}
    for cache in ("off", "on"):
        done = run(*settings, f"freeze.cache={cache}", f"output_dir={cache}", cwd=tmp_path)
        assert done.code == 0, done.stderr
        assert ("frozen layers cached: 1 of 2 blocks" in done.stderr) == (cache == "on")
        found[cache] = json.loads((tmp_path / cache / "metrics.json").read_text())
        assert run("predict", tmp_path / cache, "--text", "Good soup.", cwd=tmp_path).code == 0
    assert found["on"]["train"]["frozen_cache"]["blocks"] == 1
    assert "frozen_cache" not in found["off"]["train"]
    assert found["on"]["validation"]["loss"] == pytest.approx(found["off"]["validation"]["loss"], rel=1e-4)


@pytest.mark.parametrize(("before", "cache"), [({"frozen_cache": False}, "off"), ({"frozen_cache": True}, "auto")])
def test_a_run_that_began_without_the_cache_goes_on_without(before: dict, cache: str, tmp_path: Path) -> None:
    from nlp_finetune.resuming import with_decisions
    from nlp_finetune.runs.folder import write_json

    folder = RunFolder(tmp_path)
    write_json(folder.decisions, before)
    loaded = load("text_cls", overrides=["freeze.layers=1"], task_options=base.options_of, task_names=base.names())
    assert with_decisions(loaded.recipe, folder, processes=1).freeze.cache == cache


def test_a_limit_of_no_cache_is_refused(tmp_path: Path) -> None:
    done = run(*TINY, "freeze.layers=1", "freeze.cache=off", "freeze.cache_limit_gb=1", "output_dir=run", cwd=tmp_path)
    assert done.code == 2
    assert "there is no cache to limit" in done.stderr


def test_a_cache_of_nothing_is_refused(tmp_path: Path) -> None:
    done = run(*TINY, "freeze.cache=on", "output_dir=run", cwd=tmp_path)
    assert done.code == 2
    assert "nothing is frozen for good whose output could be kept" in done.stderr


@pytest.mark.slow
def test_two_processes_fill_one_cache_and_train_as_one_does_without(tmp_path: Path) -> None:
    from tests.tiny_runs import finish, history

    # Two processes draw other dropout than one.
    settings = (
        *TINY,
        "model.dropout=0.0",
        "freeze.layers=1",
        "train.max_steps=60",
        "train.eval_every=30",
        "train.log_every=1",
    )
    losses = {}
    for name, processes in (("off", 1), ("on", 2)):
        (tmp_path / name).mkdir()
        said = finish(tmp_path / name, *settings, f"freeze.cache={name}", processes=processes)
        assert ("frozen layers cached: 1 of 2 blocks" in said) == (name == "on")
        losses[name] = [line["loss"] for line in history(tmp_path / name / "run") if "loss" in line]
    assert len(losses["on"]) == 60
    assert losses["on"] == pytest.approx(losses["off"], rel=1e-4)
