"""A file that would run code where it is unpickled runs none, wherever it is put."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from nlp_finetune.runs import sealing
from tests.command_line import run
from tests.tiny import TINY

STEPS = ("train.max_steps=4", "train.eval_every=2", "train.save_every=2")


class Payload:
    """Pickled, it makes a file where it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


@pytest.fixture
def executed(tmp_path: Path) -> Path:
    """The file that a payload makes."""
    return tmp_path / "executed"


def poison(file: Path, executed: Path, *, zipped: bool = False) -> None:
    """Put a payload into a file: a bare pickle, or one inside the archive that `torch.save` writes."""
    if zipped:
        import torch

        torch.save({"state": Payload(executed)}, file)
    else:
        file.write_bytes(pickle.dumps(Payload(executed)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    done = run(*TINY, *STEPS, "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    return folder / "run"


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A finished run; a copy, so that tests may spoil it."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_the_payload_of_these_tests_works(executed: Path, tmp_path: Path) -> None:
    poison(tmp_path / "file", executed)
    pickle.loads((tmp_path / "file").read_bytes())
    assert executed.exists()


def test_only_safetensors_are_written_as_weights(trained: Path) -> None:
    assert not [f for f in (trained / "model").iterdir() if f.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]
    assert (trained / "model" / "model.safetensors").is_file()
    assert not list(trained.rglob("training_args.bin"))


@pytest.mark.parametrize("zipped", [False, True])
def test_pickles_beside_the_weights_of_a_run_are_not_looked_at(zipped: bool, finished: Path, executed: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "adapter_model.bin", "rng_state.pth"):
        poison(finished / "model" / name, executed, zipped=zipped)
    done = run("predict", finished, "--text", "good", "--json", cwd=finished)
    assert done.code == 0, done.stderr
    assert not executed.exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_pickled_weights_in_place_of_a_runs_are_refused(zipped: bool, finished: Path, executed: Path) -> None:
    (finished / "model" / "model.safetensors").unlink()
    poison(finished / "model" / "pytorch_model.bin", executed, zipped=zipped)
    done = run("predict", finished, "--text", "good", cwd=finished)
    assert done.code == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert not executed.exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_pickled_weights_of_a_checkpoint_are_read_without_running_them(
    zipped: bool, finished: Path, executed: Path, tmp_path: Path
) -> None:
    base = finished / "model"
    (base / "model.safetensors").unlink()
    poison(base / "pytorch_model.bin", executed, zipped=zipped)
    done = run(
        "--recipe", "text_cls", f"model.checkpoint={base}", "data.source=demo:reviews", "train.max_steps=1",
        "output_dir=again", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 2
    assert "Traceback" not in done.stderr
    assert not executed.exists()


IN_CHECKPOINT = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "pytorch_model.bin")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
@pytest.mark.parametrize("name", IN_CHECKPOINT)
def test_a_payload_in_a_checkpoint_is_not_run_by_going_on(
    name: str, engine: str, finished: Path, executed: Path
) -> None:
    shutil.rmtree(finished / "model")
    shutil.rmtree(finished / "checkpoints" / "step-4")
    for file in ("metrics.json", "status.json"):
        (finished / file).unlink()
    recipe = finished / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("engine: trainer", f"engine: {engine}"))
    checkpoint = finished / "checkpoints" / "step-2"
    best = finished / "checkpoints" / "best-2"
    best.mkdir()  # which was deleted when the run was finished
    for file in ("model.safetensors", "config.json"):
        shutil.copy(checkpoint / file, best / file)
    poison(checkpoint / name, executed, zipped=True)
    # The manifest says that the files are as they were meant, as an attacker would make it say.
    sealing.seal(checkpoint, about=sealing.contents(checkpoint)["about"])
    sealing.seal(best)
    done = run(*TINY, *STEPS, f"train.engine={engine}", f"output_dir={finished}", cwd=finished)
    assert not executed.exists()
    # What is not needed is ignored; what is needed and can't be read ends the run.
    assert done.code == (0 if name in ("training_args.bin", "pytorch_model.bin") else 1), done.stderr
    assert "Traceback" not in done.stderr
