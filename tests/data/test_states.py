"""Items of many rows on disk: read as they were written, whole or not at all, and never more than the limit."""

import os
from pathlib import Path

import numpy as np
import pytest

from nlp_finetune.data.states import States, Writer, finish, is_whole, make_room


def written(root: Path, name: str, rows: dict[int, np.ndarray], *, processes: int = 1) -> Path:
    partial = root / f".{name}"
    partial.mkdir(parents=True)
    writers = [Writer(partial, process=process) for process in range(processes)]
    for number, row in enumerate(sorted(rows, reverse=True)):
        writers[number % processes].add(row, rows[row])
    for writer in writers:
        writer.close()
    places = {row: place for writer in writers for row, place in writer.places.items()}
    kind = next(writer.kind for writer in writers if writer.kind)
    about = {"dtype": kind[0], "shape": list(kind[1]), "files": processes}
    finish(partial, root / name, [places[row] for row in sorted(places)], about)
    return root / name


@pytest.mark.parametrize("processes", [1, 3, 7])
def test_rows_are_read_as_they_were_written_whoever_wrote_them(processes: int, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = {row: random.normal(size=(1 + row % 4, 5)).astype(np.float32) for row in range(6)}
    states = States(written(tmp_path, "a", rows, processes=processes))
    assert len(states) == 6
    items, counts = states.read([4, 0, 4, 3])
    assert np.array_equal(items, np.concatenate([rows[4], rows[0], rows[4], rows[3]]))
    assert counts.tolist() == [1, 1, 1, 4]


def test_what_is_not_finished_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Writer(tmp_path / "a", process=0).close()
    assert not is_whole(tmp_path / "a")
    assert is_whole(written(tmp_path, "b", {0: np.zeros((1, 2), np.float32)}))


def test_rows_of_another_kind_are_refused(tmp_path: Path) -> None:
    writer = Writer(tmp_path, process=0)
    writer.add(0, np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="after items of"):
        writer.add(1, np.zeros((2, 4), np.float32))
    writer.close()


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    folders = [written(tmp_path, name, {0: np.zeros((250, 10), np.float32)}) for name in "abcd"]  # 10,000 bytes each
    for age, folder in enumerate(folders):
        os.utime(folder, (1_000_000 + age, 1_000_000 + age))
    assert is_whole(folders[0])  # used now
    make_room(tmp_path, needed=10_000, limit=36_000, keep=["b"])
    assert [folder.name for folder in folders if folder.exists()] == ["a", "b"]


def test_nothing_is_deleted_where_there_is_room(tmp_path: Path) -> None:
    folder = written(tmp_path, "a", {0: np.zeros((5, 2), np.float32)})
    make_room(tmp_path, needed=100, limit=10_000)
    assert folder.exists()
