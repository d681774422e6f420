"""Whether a folder holds this run, and whether these processes can go on with it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nlp_finetune import resuming
from nlp_finetune.errors import InputError
from nlp_finetune.runs.folder import RunFolder, write_json
from nlp_finetune.runtime import Runtime


def checkpoint_of_one_process(folder: Path, model: torch.nn.Module) -> Path:
    (folder / "rng_state.pth").touch()
    torch.save(torch.optim.AdamW(model.parameters()).state_dict(), folder / "optimizer.pt")
    return folder


@pytest.mark.parametrize(("processes", "parameters"), [(1, 4), (2, 4)])
def test_processes_may_go_on_that_train_the_same_parameters(processes: int, parameters: int, tmp_path: Path) -> None:
    check_processes(processes, parameters, tmp_path)


def test_processes_that_had_to_freeze_parameters_may_not_go_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot go on with 2 processes.* Go on with 1"):
        check_processes(2, 3, tmp_path)


def check_processes(processes: int, parameters: int, folder: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    here = Runtime(
        rank=0, processes=processes, local_rank=0, local_processes=processes, device=torch.device("cpu"), threads=1
    )
    job = SimpleNamespace(
        model=model, make_optimizer=lambda model: torch.optim.AdamW(list(model.parameters())[:parameters])
    )
    resuming._refuse_other_parameters(SimpleNamespace(job=job), checkpoint_of_one_process(folder, model), here)


def prepared(*, rows: int, digest: str, encoded: str) -> Any:
    return SimpleNamespace(
        loaded=SimpleNamespace(origins={"train": "a.csv"}, splits={"train": SimpleNamespace(_fingerprint=digest)}),
        rows={"train": range(rows)},
        digests={"train": encoded},
    )


BEGUN = {"rows": 3, "digest": "a", "encoded": "x"}


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({**BEGUN, "digest": "b", "encoded": "y"}, r"train \(a.csv\): the content has changed \(3 rows\)"),
        ({**BEGUN, "rows": 4, "digest": "b", "encoded": "y"}, r"the content has changed \(3 rows, now 4\)"),
        ({**BEGUN, "encoded": "y"}, "tokenized in another way"),
    ],
)
def test_other_data_are_refused_with_what_has_changed(now: dict, message: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_json(folder.data, resuming.data_of(prepared(**BEGUN)))
    resuming.refuse_other_data(folder, prepared(**BEGUN))
    with pytest.raises(InputError, match=message):
        resuming.refuse_other_data(folder, prepared(**now))


def test_a_folder_that_holds_only_the_status_of_a_stopped_start_is_free(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.set_status("stopped", exit_code=75, reason="", step=0)
    assert resuming.refuse_other_run(folder, None) == []  # type: ignore[arg-type]  # not read
    (folder.path / "thesis.txt").touch()
    with pytest.raises(InputError, match="is not empty and holds no run"):
        resuming.refuse_other_run(folder, None)  # type: ignore[arg-type]
