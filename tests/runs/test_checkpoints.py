"""A checkpoint is whole or it is not taken."""

from pathlib import Path

import pytest
import torch

from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.runs import checkpoints


def write(root: Path, step: int, *, keep: int = 5) -> Path:
    folder = checkpoints.partial_folder(root, step)
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(200)))
    (folder / "state.json").write_text("{}")
    return checkpoints.publish(root, step, keep=keep)


def test_a_published_checkpoint_verifies(tmp_path: Path) -> None:
    assert checkpoints.fault(write(tmp_path, 3)) is None


def flip(folder: Path) -> None:
    content = bytearray((folder / "weights.bin").read_bytes())
    content[7] ^= 1
    (folder / "weights.bin").write_bytes(content)


DAMAGE = {
    "a flipped byte": (flip, "damaged"),
    "a truncated file": (lambda f: (f / "weights.bin").write_bytes(b"12"), "has 2 bytes, not 200"),
    "a missing file": (lambda f: (f / "state.json").unlink(), "state.json is missing"),
    "a missing manifest": (lambda f: (f / checkpoints.MANIFEST).unlink(), "no manifest"),
    "a broken manifest": (lambda f: (f / checkpoints.MANIFEST).write_text("{"), "cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_the_one_before_is_taken(kind: str, tmp_path: Path) -> None:
    damage, reason = DAMAGE[kind]
    older, newer = write(tmp_path, 9), write(tmp_path, 10)
    damage(newer)
    said: list[str] = []
    assert checkpoints.newest(tmp_path, said.append) == older
    assert len(said) == 1
    assert "step-10 skipped" in said[0]
    assert reason in said[0]


def test_what_a_kill_left_half_written_is_never_taken(tmp_path: Path) -> None:
    checkpoints.partial_folder(tmp_path, 4).mkdir(parents=True)
    assert checkpoints.newest(tmp_path, lambda _: None) is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 10):
        write(tmp_path, step, keep=2)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["step-10", "step-4"]


def test_random_states_come_back(tmp_path: Path) -> None:
    checkpoints.save_random_state(tmp_path, 0, 1)
    expected = torch.rand(3)
    checkpoints.load_random_state(tmp_path, 0, 1)
    assert torch.equal(torch.rand(3), expected)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"other": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(NlpFinetuneError, match="does not fit this model"):
        checkpoints.load_weights(torch.nn.Linear(2, 2), tmp_path)
