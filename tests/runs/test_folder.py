"""Files and folders of a run are written whole or not at all."""

import errno
import json
import os
from pathlib import Path

import pytest

from nlp_finetune.errors import InputError, NlpFinetuneError
from nlp_finetune.runs.folder import RunFolder, disk_faults, replaced_folder, swap_in, write_json


def fill_half(target: Path) -> None:
    with replaced_folder(target) as partial:
        (partial / "weights").write_text("half")
        raise KeyboardInterrupt


def test_an_error_while_filling_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with replaced_folder(target) as partial:
        (partial / "weights").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        fill_half(target)
    assert (target / "weights").read_text() == "old"


def test_a_folder_that_never_was_whole_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill_half(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_new_folder_takes_the_place_of_the_old(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with replaced_folder(tmp_path / "model") as partial:
            (partial / content).touch()
    assert [f.name for f in (tmp_path / "model").iterdir()] == ["new"]
    assert [f.name for f in tmp_path.iterdir()] == ["model"]


def test_nan_is_refused_in_json_and_the_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"accuracy": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"accuracy": float("nan")})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"accuracy": 1.0}


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run").refuse_unwritable()
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run").create()


def test_a_run_is_finished_only_with_its_metrics(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.set_status("finished", exit_code=0, reason="", step=3)
    assert not folder.is_finished
    write_json(folder.metrics, {})
    assert folder.is_finished


def test_a_rename_that_a_network_file_system_has_done_already_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.replace

    def repeated(source: Path, target: Path) -> None:
        rename(source, target)
        raise FileNotFoundError(source)

    (tmp_path / "partial").mkdir()
    monkeypatch.setattr(os, "replace", repeated)
    swap_in(tmp_path / "partial", tmp_path / "model")
    assert (tmp_path / "model").is_dir()


def test_an_error_of_the_disk_says_what_where_and_why(tmp_path: Path) -> None:
    with pytest.raises(NlpFinetuneError, match=r"the model could not be written to .*: the disk is full or a quota"):
        fail_with(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), tmp_path)
    with pytest.raises(NlpFinetuneError, match=r"could not be written to .*: Input/output error"):
        fail_with(OSError(errno.EIO, os.strerror(errno.EIO)), tmp_path)
    with pytest.raises(RuntimeError, match="no matter of disks"):
        fail_with(RuntimeError("no matter of disks"), tmp_path)


def fail_with(error: Exception, where: Path) -> None:
    with disk_faults("the model", where):
        raise error
