"""A validation set of whole groups."""

from datasets import Dataset

from nlp_finetune.data.groups import hold_out

ROWS = Dataset.from_dict({"text": [f"t{i // 5}" for i in range(100)], "number": list(range(100))})


def split(rows: Dataset = ROWS, *, seed: int = 1, fraction: float = 0.1):
    return hold_out(rows, fraction=fraction, seed=seed, group=lambda row: row["text"])


def test_no_group_is_on_both_sides_and_no_row_is_lost() -> None:
    stays, held_out = split()
    assert not set(stays["text"]) & set(held_out["text"])
    assert sorted([*stays["number"], *held_out["number"]]) == list(range(100))
    assert len(held_out) == 10


def test_the_same_seed_gives_the_same_split_and_another_another() -> None:
    assert split()[1]["number"][:] == split()[1]["number"][:]
    assert split(seed=1)[1]["number"][:] != split(seed=2)[1]["number"][:]


def test_one_group_always_stays() -> None:
    stays, _ = split(fraction=0.999)
    assert len(set(stays["text"])) == 1


def test_rows_without_groups_are_not_split_here() -> None:
    assert hold_out(ROWS, fraction=0.1, seed=1, group=lambda row: None) is None
    assert split(ROWS.select(range(5))) is None
