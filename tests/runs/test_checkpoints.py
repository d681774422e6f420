"""A checkpoint is whole or it is not taken."""

from pathlib import Path

import pytest
import torch
from transformers import TrainerState

from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.runs import checkpoints, sealing
from nlp_finetune.runs.folder import replaced_folder

ABOUT = {"recipe": "this one"}


def fill(root: Path, step: int, *, best: int | None = None) -> Path:
    folder = checkpoints.partial_folder(root, step)
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(200)))
    TrainerState(global_step=step, best_global_step=best).save_to_json(str(folder / "trainer_state.json"))
    return folder


def write(root: Path, step: int, *, keep: int = 5, best: int | None = None, about: dict = ABOUT) -> Path:
    fill(root, step, best=best)
    return checkpoints.publish(root, step, keep=keep, about=about)


def write_best(root: Path, step: int) -> Path:
    with replaced_folder(checkpoints.best_folder(root, step)) as partial:
        (partial / "weights.bin").write_bytes(bytes(range(100)))
        sealing.seal(partial)
    return checkpoints.best_folder(root, step)


def newest(root: Path) -> tuple[Path | None, list[str]]:
    said: list[str] = []
    return checkpoints.newest(root, said.append, about=ABOUT), said


def names(root: Path) -> list[str]:
    return sorted(file.name for file in root.iterdir())


def test_a_published_checkpoint_verifies(tmp_path: Path) -> None:
    assert sealing.fault(write(tmp_path, 3), about=ABOUT) is None


def flip(folder: Path) -> None:
    content = bytearray((folder / "weights.bin").read_bytes())
    content[7] ^= 1
    (folder / "weights.bin").write_bytes(content)


def relabel(folder: Path) -> None:
    sealing.seal(folder, about={"recipe": "another"})


DAMAGE = {
    "a flipped byte": (flip, "damaged"),
    "a truncated file": (lambda f: (f / "weights.bin").write_bytes(b"12"), "has 2 bytes, not 200"),
    "a missing file": (lambda f: (f / "trainer_state.json").unlink(), "trainer_state.json is missing"),
    "a missing manifest": (lambda f: (f / sealing.MANIFEST).unlink(), "no manifest"),
    "a broken manifest": (lambda f: (f / sealing.MANIFEST).write_text("{"), "cannot be read"),
    "a manifest of another recipe": (relabel, "belongs to another recipe"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_the_one_before_is_taken(kind: str, tmp_path: Path) -> None:
    damage, reason = DAMAGE[kind]
    older, newer = write(tmp_path, 9), write(tmp_path, 10)
    damage(newer)
    found, said = newest(tmp_path)
    assert found == older
    assert len(said) == 1
    assert "step-10 skipped" in said[0]
    assert reason in said[0]


def test_a_checkpoint_whose_best_weights_are_damaged_is_not_taken(tmp_path: Path) -> None:
    for step in (5, 10):
        best = write_best(tmp_path, step)
        write(tmp_path, step, best=step)
    flip(best)
    found, said = newest(tmp_path)
    assert found == tmp_path / "step-5"
    assert "best-10: weights.bin is damaged" in said[0]


def test_best_weights_stay_while_a_checkpoint_refers_to_them(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_best(tmp_path, step)
        write(tmp_path, step, best=step, keep=2)
    assert names(tmp_path) == ["best-2", "best-3", "step-2", "step-3"]


def test_what_a_kill_left_half_written_is_never_taken_and_is_deleted(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    assert newest(tmp_path) == (None, [])
    checkpoints.tidy(tmp_path)
    assert names(tmp_path) == []


def test_a_whole_checkpoint_that_was_killed_before_its_renaming_is_taken(tmp_path: Path) -> None:
    older = write(tmp_path, 2)
    sealing.seal(fill(tmp_path, 4), about=ABOUT)
    assert newest(tmp_path)[0] == older
    checkpoints.tidy(tmp_path)
    assert newest(tmp_path)[0] == tmp_path / "step-4"


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 10):
        write(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-10", "step-4"]


def test_a_later_checkpoint_that_was_skipped_does_not_push_out_new_ones(tmp_path: Path) -> None:
    write(tmp_path, 2)
    flip(write(tmp_path, 50))
    write(tmp_path, 4, keep=1)
    assert names(tmp_path) == ["step-4"]


def test_an_amended_checkpoint_is_whole_and_its_large_files_are_not_copied(tmp_path: Path) -> None:
    folder = write(tmp_path, 6)
    before = (folder / "weights.bin").stat().st_ino
    state = TrainerState(global_step=6, best_metric=0.5)
    checkpoints.amend(folder, state=state, scheduler=None, callbacks={"a": 1})
    assert sealing.fault(folder, about=ABOUT) is None
    assert checkpoints.load_trainer_state(folder).best_metric == 0.5
    assert checkpoints.load_callbacks(folder) == {"a": 1}
    assert (folder / "weights.bin").stat().st_ino == before


def test_random_states_come_back(tmp_path: Path) -> None:
    checkpoints.save_random_states(tmp_path, [checkpoints.random_state(1)])
    expected = torch.rand(3)
    checkpoints.load_random_state(tmp_path, 0, 1)
    assert torch.equal(torch.rand(3), expected)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"other": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(NlpFinetuneError, match="does not fit this model"):
        checkpoints.load_weights(torch.nn.Linear(2, 2), tmp_path)
