"""How much of its GPU a run uses, tried on a CPU whose peak is pretended to be known."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import nlp_finetune.engines  # noqa: F401  before the first import of transformers
from nlp_finetune import build as building
from nlp_finetune import metering, train
from nlp_finetune.data.batching import BatchPlan
from nlp_finetune.models.flops import Work
from nlp_finetune.preparation import Prepared, prepare
from nlp_finetune.recipe import load
from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.runtime import Runtime
from nlp_finetune.stopping import StopRequest
from nlp_finetune.tasks import base
from tests.command_line import start_all
from tests.tiny import TINY

HERE = Runtime(0, 1, 0, 1, torch.device("cpu"), 1)
SHORT = ("train.max_steps=3", "train.eval_every=3")


@pytest.fixture
def known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "peak", lambda runtime, precision: 0.5)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))


def prepared(*overrides: str, recipe: str = "text_cls", demo: bool = False) -> Prepared:
    loaded = load(
        recipe, overrides=[*overrides], demo=demo, task_options=base.options_of, task_names=base.names()
    )  # fmt: skip
    return prepare(loaded.recipe, HERE, tell=lambda line: None)


def work(given: Prepared, folder: Path) -> Work | None:
    return building.build(given, RunFolder(folder), HERE, StopRequest(), about={}).work


def test_tokens_are_those_without_padding_and_the_share_is_that_of_all_devices() -> None:
    plan = BatchPlan([3, 5, 8, 4], 2, 4, seed=1)
    found = metering.throughput(
        plan, steps=4, seconds=2.0, has_tokens=True, work=Work((0.0, 1e12, 0.0)), peaks=[10.0, 30.0]
    )
    assert found["tokens_per_second"] == 2 * (3 + 5 + 8 + 4) / 2
    assert found["model_tflops_per_second"] == 20
    assert found["model_flops_utilization"] == 0.5
    assert metering.throughput(plan, steps=0, seconds=0.0, has_tokens=True, work=None, peaks=[]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_a_share_is_claimed_where_the_peak_is_known_and_counting_changes_nothing(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*TINY[2:], *SHORT, "model.dropout=0.1", "train.log_every=1", f"train.engine={engine}"]
    recipe = load("text_cls", overrides=overrides, task_options=base.options_of, task_names=base.names()).recipe
    losses, found = [], {}
    for name in ("unknown", "known"):
        if name == "known":
            monkeypatch.setattr(metering, "peak", lambda runtime, precision: 0.5)
        done = train.train(recipe.model_copy(update={"output_dir": str(tmp_path / name)}))
        found[name] = done.metrics["train"]
        history = (tmp_path / name / "history.jsonl").read_text().splitlines()
        losses.append([json.loads(line).get("loss") for line in history])
    figures = found["known"]
    assert found["unknown"]["tokens_per_second"] > found["unknown"]["samples_per_second"]
    assert not {"model_flops_utilization", "model_tflops_per_second", "peak_tflops"} & found["unknown"].keys()
    share = figures["model_tflops_per_second"] / 0.5
    assert 0 < figures["model_flops_utilization"] == pytest.approx(share, rel=1e-3)
    assert losses[0] == losses[1]
    assert "of the peak of the GPUs" in (tmp_path / "known" / "README.md").read_text()
    assert "of the peak of its GPUs" in (tmp_path / "known" / "report.html").read_text()


def test_what_a_cache_or_a_frozen_layer_saves_is_not_counted(known_peak: None, tmp_path: Path) -> None:
    settings = [*TINY[2:], "train.epochs=2", "train.packing=off"]
    found = {}
    for name, more in (
        ("all", []),
        ("frozen", ["freeze.layers=1", "freeze.cache=off"]),
        ("cached", ["freeze.layers=1", "freeze.cache=on"]),
        ("twice", ["regularize.r_drop=1"]),
    ):
        counted = work(prepared(*settings, *more), tmp_path / name)
        assert counted is not None
        found[name] = counted.of([16])
    assert found["cached"] < found["frozen"] < found["all"]
    assert found["twice"] == pytest.approx(2 * found["all"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["token_cls", "qa", "masked_lm", "multiple_choice", "seq2seq", "image_cls", "embedding"]
)
def test_every_task_is_counted(name: str, known_peak: None, tmp_path: Path) -> None:
    sizes = "{hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64, vocab_size: 600}"
    own = {"seq2seq": [], "image_cls": ["model.config={hidden_sizes: [8, 16], depths: [1, 1], embedding_size: 8}"]}
    small = own.get(name, ["model.checkpoint=scratch:bert", "model.tokenizer=train", f"model.config={sizes}"])
    counted = work(prepared(*small, "data.limit=40", "train.batch_size=8", recipe=name, demo=True), tmp_path)
    assert counted is not None
    assert counted.of([8]) > 0


def test_mixed_rows_are_counted_and_layers_that_thaw_are_not(known_peak: None, tmp_path: Path) -> None:
    assert work(prepared(*TINY[2:], "regularize.mixup=0.2"), tmp_path / "mixed") is not None
    assert work(prepared(*TINY[2:], "freeze.gradual=8"), tmp_path / "thawing") is None


def test_what_cannot_be_counted_is_said_and_stops_nothing(
    known_peak: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no such formula\nand a trace")

    said: list[str] = []
    monkeypatch.setattr(metering, "say", said.append)
    monkeypatch.setattr(metering.flops, "count", fails)
    given = prepared(*TINY[2:])
    assert work(given, tmp_path) is None
    assert said == ["model FLOPs are not counted: no such formula"]


def pretend() -> None:
    """Let every process think that it knows its peak."""
    metering.peak = lambda runtime, precision: 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", [{}, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}], ids=["replicas", "shards"]
)
def test_the_share_of_two_processes_is_that_of_both_their_devices(
    strategy: dict[str, str], known_peak: None, tmp_path: Path
) -> None:
    arguments = (*TINY, *SHORT, "train.first_token_only=off", "output_dir=run")  # shards compute whole blocks
    ended = [
        one.wait(240) for one in start_all(2, *arguments, cwd=tmp_path, environment=strategy, before=pretend)
    ]  # fmt: skip
    assert [one.code for one in ended] == [0, 0], ended[0].stderr[-3000:]
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())["train"]
    assert figures["peak_tflops"] == 1.0
    operations = figures["model_tflops_per_second"] * figures["seconds"] * 1e12
    settings = prepared(*TINY[2:], *SHORT, "train.first_token_only=off")
    alone = building.build(settings, RunFolder(tmp_path), HERE, StopRequest(), about={})
    assert alone.work is not None
    seen = [alone.job.batches.lengths[row] for step in range(3) for row in alone.job.batches.global_batch(step)]
    assert operations == pytest.approx(alone.work.of(seen), rel=0.05)
