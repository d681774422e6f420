"""Training only the rows of the embedding table that are read gives the weights of training all, bit for bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.engines.trajectory import Settings, build_job, fit

ENGINES = ("trainer", "accelerate")
CLIPPED, FREE = 0.3, 0.0


def weights(settings: Settings, folder: Path) -> dict[str, torch.Tensor]:
    """What a run ends with, as it would be saved."""
    fitted = fit(build_job(settings, str(folder)), settings.engine)
    norms = [entry["grad_norm"] for entry in fitted.state.log_history if "grad_norm" in entry]
    assert settings.max_grad_norm == FREE or max(norms) > settings.max_grad_norm
    return fitted.model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("optimizer", "max_grad_norm"), [("adamw", CLIPPED), ("adamw", FREE), ("lion", FREE)])
def test_the_whole_table_ends_as_it_would(engine: str, optimizer: str, max_grad_norm: float, tmp_path: Path) -> None:
    # Both let weights decay, so the rows that are never read move too.
    settings = Settings(engine=engine, optimizer=optimizer, micro_batches=2, dropout=0.1, max_grad_norm=max_grad_norm)
    start = build_job(settings, str(tmp_path)).model.state_dict()
    whole = weights(settings, tmp_path)
    assert same(whole, weights(replace(settings, compact=True), tmp_path))
    table = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(whole[table][62], start[table][62])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True)])
def test_a_run_goes_on_with_or_without_it(engine: str, before: bool, after: bool, tmp_path: Path) -> None:
    settings = Settings(engine=engine, dropout=0.1, max_grad_norm=CLIPPED)
    uninterrupted = weights(settings, tmp_path)
    checkpoint = str(tmp_path / "checkpoints" / "step-4")
    weights(replace(settings, compact=before, checkpoint=checkpoint, save_at=4), tmp_path)
    assert same(uninterrupted, weights(replace(settings, compact=after, checkpoint=checkpoint), tmp_path))


def test_one_engine_goes_on_from_the_checkpoint_of_the_other(tmp_path: Path) -> None:
    settings = Settings(max_grad_norm=CLIPPED)
    uninterrupted = weights(settings, tmp_path)
    checkpoint = str(tmp_path / "checkpoints" / "step-4")
    weights(replace(settings, compact=True, checkpoint=checkpoint, save_at=4), tmp_path)
    goes_on = replace(settings, compact=True, checkpoint=checkpoint, engine="accelerate")
    assert same(uninterrupted, weights(goes_on, tmp_path))
