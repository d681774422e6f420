"""Disks that are full, read-only or slow, and checkpoints that are damaged: one message, nothing good lost."""

import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nlp_finetune.runs import checkpoints, sealing
from tests.command_line import Done
from tests.command_line import start as start_command
from tests.tiny_runs import SENTENCES, finish, history, same, start, status, stop, wait, weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(folder, *SENTENCES)
    return folder / "run"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run with the checkpoints of step 20 and of a later one."""
    folder = tmp_path_factory.mktemp("stopped")
    stop(folder, *SENTENCES, lines=26)
    return folder


def only_message(done: Done) -> str:
    """What a failed command says; there is no traceback."""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which can be filled and made read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def fill(disk: Path, *, but: int) -> Path:
    filler = disk / "filler"
    with open(filler, "wb") as stream:
        for _ in range((shutil.disk_usage(disk).free - but) // 4096):
            stream.write(bytes(4096))
    return filler


def test_a_full_disk_stops_the_run_and_it_goes_on_when_there_is_space(small_disk: Path, uninterrupted: Path) -> None:
    checkpoint = size(uninterrupted / "checkpoints" / "step-40")
    filler = fill(small_disk, but=2 * checkpoint)  # one with its best weights fits, two do not
    (done,) = wait(start(small_disk, *SENTENCES))
    assert done.code == 1
    assert "the disk is full or a quota is used up" in only_message(done)
    assert "The same command goes on from the untouched checkpoint of step 10" in only_message(done)
    root = small_disk / "run" / "checkpoints"
    assert checkpoints.newest(root, print) == root / "step-10"
    assert not list(root.glob(".step-*"))
    filler.unlink()
    assert "going on from run/checkpoints/step-10" in finish(small_disk, *SENTENCES)
    assert same(weights(small_disk / "run"), weights(uninterrupted))


def test_a_disk_that_cannot_hold_the_run_is_refused_before_training(small_disk: Path) -> None:
    fill(small_disk, but=300_000)
    (done,) = wait(start(small_disk, *SENTENCES))
    assert done.code == 2
    assert "take at least 0.5 MB, but 0.3 MB are free there" in only_message(done)
    assert not (small_disk / "run").exists()


def test_a_disk_that_turns_read_only_stops_the_run(small_disk: Path, uninterrupted: Path) -> None:
    (started,) = start(small_disk, *SENTENCES)
    started.until(lambda: (small_disk / "run" / "checkpoints" / "step-10").is_dir())
    while subprocess.run(["mount", "-o", "remount,ro", small_disk], capture_output=True).returncode != 0:
        time.sleep(0.01)  # busy: a file is open for writing
    done = started.wait()
    assert done.code == 1
    assert "Read-only file system" in only_message(done)
    (refused,) = wait(start(small_disk, *SENTENCES))
    assert refused.code == 2
    assert "read-only file system" in only_message(refused)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    finish(small_disk, *SENTENCES)
    assert same(weights(small_disk / "run"), weights(uninterrupted))


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_a_file_that_may_not_grow_is_told_like_a_full_disk(tmp_path: Path, uninterrupted: Path) -> None:
    # The weights may be written, the optimizer's state, twice as large, may not.
    parts = uninterrupted / "checkpoints" / "step-40"
    assert (parts / "model.safetensors").stat().st_size < 300_000 < (parts / "optimizer.pt").stat().st_size
    done = start_command(*SENTENCES, "output_dir=run", cwd=tmp_path, before=small_files).wait()
    assert done.code == 1
    assert "the disk is full or a quota is used up" in only_message(done)
    assert status(tmp_path / "run")["state"] == "failed"
    finish(tmp_path, *SENTENCES)
    assert same(weights(tmp_path / "run"), weights(uninterrupted))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    stopped: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "run" / "checkpoints" / f"step-{status(tmp_path / 'run')['step']}"
    flip(newest / "model.safetensors")
    log = finish(tmp_path, *SENTENCES)
    assert f"{newest.name} skipped: model.safetensors is damaged" in log
    assert "going on from run/checkpoints/step-20" in log
    assert same(weights(tmp_path / "run"), weights(uninterrupted))


def test_checkpoints_of_another_recipe_are_not_gone_on_from(stopped: Path, uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    for folder in (tmp_path / "run" / "checkpoints").glob("step-*"):
        about = sealing.contents(folder)["about"]
        sealing.seal(folder, about={**about, "recipe": "0" * 32})
    log = finish(tmp_path, *SENTENCES)
    assert log.count("skipped: it belongs to another recipe") == 2
    assert "going on from" not in log
    assert same(weights(tmp_path / "run"), weights(uninterrupted))


def test_changed_data_are_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    data = tmp_path / "reviews.csv"
    rows = [f"review {i} is {'good' if i % 2 else 'bad'},{i % 2}" for i in range(60)]
    data.write_text("\n".join(["text,label", *rows]))
    arguments = (*SENTENCES, "data.source=reviews.csv")
    stop(tmp_path, *arguments, lines=14)
    before = sorted(file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*"))
    data.write_text("\n".join(["text,label", *rows, "one more is good,1"]))
    (done,) = wait(start(tmp_path, *arguments))
    assert done.code == 2
    assert "the data are not those that this run began with" in done.stderr
    assert "the content has changed" in done.stderr
    assert sorted(file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*")) == before
    data.write_text("\n".join(["text,label", *rows]))
    assert "going on from" in finish(tmp_path, *arguments)


def slow_renames() -> None:
    import os

    rename = os.replace

    def slowly(source: str, target: str) -> None:
        time.sleep(0.5)
        rename(source, target)

    os.replace = slowly  # type: ignore[assignment]


def test_a_kill_between_slow_renames_loses_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    started = start_command(*SENTENCES, "output_dir=run", cwd=tmp_path, before=slow_renames)
    root = tmp_path / "run" / "checkpoints"
    started.until(lambda: (root / ".step-10.partial" / "manifest.json").is_file())
    started.send(signal.SIGKILL)
    started.wait()
    assert not (root / "step-10").exists()
    assert "going on from run/checkpoints/step-10" in finish(tmp_path, *SENTENCES)
    assert same(weights(tmp_path / "run"), weights(uninterrupted))
    assert len(history(tmp_path / "run")) == 44
