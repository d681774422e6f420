"""The run folder: where each file of a run is, and how it is written.

model/            save_pretrained, plus `task.json`: what the task learned from the data
recipe.yaml       the resolved recipe              decisions.json    what `auto` decided
environment.json  versions, hardware, command      check.json        the data report
data.json         rows that the run began with
metrics.json      scores of the weights in model/  history.jsonl     what happened at which step
details.json      what stands behind the scores    predictions/      a file a split, a line a row
sources.json      base and data: commits, hashes, licences, as far as they are known
README.md         the model card                   card.md           the user's own text in it (`hub.card`)
progress.json     how training goes, what trained  report.html       all of this as one page
status.json       state, exit code, reason, step   checkpoints/      `checkpoints.py`
divergence.jsonl  steps that gave no finite numbers, with their rows
adapter/          with adapters: what was trained  base/             what they change, if made from scratch
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nlp_finetune.errors import InputError, NlpFinetuneError

TASK_FILE = "task.json"


class RunFolder:
    """Paths of one run and atomic writing of its small files."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.model = self.path / "model"
        self.adapter = self.path / "adapter"
        self.base = self.path / "base"
        self.recipe = self.path / "recipe.yaml"
        self.decisions = self.path / "decisions.json"
        self.environment = self.path / "environment.json"
        self.check = self.path / "check.json"
        self.sources = self.path / "sources.json"
        self.card = self.path / "README.md"
        self.own_card = self.path / "card.md"
        self.data = self.path / "data.json"
        self.metrics = self.path / "metrics.json"
        self.details = self.path / "details.json"
        self.progress = self.path / "progress.json"
        self.report = self.path / "report.html"
        self.predictions = self.path / "predictions"
        self.history = self.path / "history.jsonl"
        self.divergence = self.path / "divergence.jsonl"
        self.status = self.path / "status.json"
        self.checkpoints = self.path / "checkpoints"

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def is_finished(self) -> bool:
        """Whether the run ended as planned: its model is whole and its metrics are written."""
        return bool(read_json(self.status).get("state") == "finished" and self.metrics.is_file())

    @property
    def is_begun(self) -> bool:
        """Whether a run was started here: its recipe is written before its first step."""
        return self.recipe.is_file()

    def refuse_unwritable(self) -> None:
        """Raise `InputError` where the folder could not be made or written; nothing is made yet."""
        nearest = next(parent for parent in (self.path.absolute(), *self.path.absolute().parents) if parent.exists())
        if not nearest.is_dir():
            raise InputError(f"output_dir {self.path}: cannot be written, because {nearest} is a file.")
        if os.statvfs(nearest).f_flag & os.ST_RDONLY:
            raise InputError(f"output_dir {self.path}: cannot be written ({nearest} is on a read-only file system).")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise InputError(f"output_dir {self.path}: cannot be written (no permission for {nearest}).")

    def refuse_full(self, *, least_bytes: int) -> None:
        """Raise `InputError` where less space is free than what will be written for certain."""
        nearest = next(parent for parent in (self.path.absolute(), *self.path.absolute().parents) if parent.exists())
        free = shutil.disk_usage(nearest).free
        if free < least_bytes:
            raise InputError(
                f"output_dir {self.path}: a checkpoint, the best weights and the finished model take at least "
                f"{least_bytes / 2**20:,.1f} MB, but {free / 2**20:,.1f} MB are free there."
            )

    def create(self) -> None:
        """Make the folder, or raise `InputError` where that cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"output_dir {self.path}: cannot be written ({error.strerror}). Set output_dir=FOLDER."
            ) from error

    def set_status(self, state: str, *, exit_code: int | None, reason: str, step: int) -> None:
        """Write `status.json`, which says what exit codes that a launcher swallows would have said."""
        write_json(self.status, {"state": state, "exit_code": exit_code, "reason": reason, "step": step})


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOTHING_LEFT = 2**16


@contextmanager
def disk_faults(what: str, where: Path) -> Iterator[None]:
    """Turn what the system and the libraries raise about a full or failing disk into one clear message."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        nearest = next((p for p in (where, *where.absolute().parents) if p.exists()), Path("/"))
        free = shutil.disk_usage(nearest).free
        if is_full(error) or free < _NOTHING_LEFT:
            reason = f"the disk is full or a quota is used up ({free / 2**20:.0f} MB free). Free some space"
        elif isinstance(error, RuntimeError):
            raise  # torch puts the system's errors into words of its own, but has others too
        else:
            reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        raise NlpFinetuneError(f"{what} could not be written to {where}: {reason}.") from error


def is_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that a disk, a quota or the allowed size of a file is used up."""
    causes = (error, error.__cause__, error.__context__)
    numbers = {getattr(cause, "errno", None) for cause in causes}
    return bool(numbers & set(_FULL)) or any(os.strerror(n) in str(cause) for n in _FULL for cause in causes)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)
    _sync(path.parent)


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    """Write JSON whole or not at all; NaN is refused, because JSON has none."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file, or nothing where there is none."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under another name; it takes `path` only when the block ends without an error.

    A process that is killed leaves the old folder, or none, but never a half-written one.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    swap_in(partial, path)


def swap_in(partial: Path, path: Path) -> None:
    """Put a whole folder in the place of another, or of none, and make sure that both are on the disk."""
    sync_folder(partial)
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    try:
        os.replace(partial, path)
    except FileNotFoundError:
        # A network file system may repeat a rename whose answer was lost: it has happened already.
        if partial.exists() or not path.exists():
            raise
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def discard(folder: Path) -> None:
    """Delete a folder; if that is cut short, no half of it is left under its name."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
        shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Ask the system to put every file of a folder, and the folder itself, on the disk."""
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise
    finally:
        os.close(descriptor)
