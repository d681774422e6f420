"""Sources: which files and splits are meant, and what is said where they are not there."""

from pathlib import Path
from typing import Any

import pytest

from nlp_finetune.data import demo
from nlp_finetune.data.sources import Loaded, load
from nlp_finetune.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own for each test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(name: str, *texts: str) -> str:
    """Write a table of these texts and return its name."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    delimiter = "\t" if name.endswith("tsv") else ","
    rows = [f"{text}{delimiter}{i % 2}" for i, text in enumerate(texts or (name,))]
    Path(name).write_text("\n".join([f"text{delimiter}label", *rows, ""]))
    return name


def loaded(source: str | None, **settings: Any) -> Loaded:
    """Load as a recipe does that leaves the splits to their defaults."""
    return load(**{"source": source, "train": "train", "validation": "validation", "test": None, **settings})


def texts(data: Loaded) -> dict[str, list[str]]:
    return {split: rows["text"][:] for split, rows in data.splits.items()}


def refusal(source: str | None, **settings: Any) -> str:
    with pytest.raises(InputError) as raised:
        loaded(source, **settings)
    return str(raised.value)


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", ["validation", None])
def test_a_file_is_training_data_and_the_missing_splits_are_said(validation: str | None) -> None:
    data = loaded(table("reviews.csv"), validation=validation)
    assert texts(data) == {"train": ["reviews.csv"]}
    assert data.origins == {"train": "reviews.csv"}
    assert data.notes == [
        "no validation split: reviews.csv has train",
        "no test split: reviews.csv has train",
    ]


def test_files_can_be_named_for_splits_without_a_source() -> None:
    data = loaded(None, train=table("a.tsv"), validation=table("b.csv"), test=table("./sub/c.csv"))
    assert texts(data) == {"train": ["a.tsv"], "validation": ["b.csv"], "test": ["./sub/c.csv"]}
    assert data.origins == {"train": "a.tsv", "validation": "b.csv", "test": "./sub/c.csv"}
    assert data.notes == []


def test_a_named_file_stands_beside_the_splits_of_a_source() -> None:
    table("set/train.csv")
    assert texts(loaded("set", validation=table("b.csv"))) == {
        "train": ["set/train.csv"],
        "validation": ["b.csv"],
    }


def test_settings_for_text_files_hold_for_all_of_them() -> None:
    Path("a.txt").write_text("good^1\nbad^0\n")
    Path("b.txt").write_text("fine^1\n")
    data = loaded(None, train="a.txt", validation="b.txt", columns=["text", "label"], delimiter="^")
    assert texts(data) == {"train": ["good", "bad"], "validation": ["fine"]}


def test_a_glob_is_one_source() -> None:
    table("part-1.csv", "a")
    table("part-2.csv", "b")
    assert texts(loaded("part-*.csv")) == {"train": ["a", "b"]}


@pytest.mark.parametrize("source", ["reveiws.csv", "./reveiws.csv"])
def test_a_missing_file_is_refused_with_names_like_it(source: str) -> None:
    table("reviews.csv")
    message = refusal(source)
    assert f"{source} does not exist" in message
    assert "reviews.csv?" in message


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "~/no such folder", "nowhere/"])
def test_what_is_written_as_a_path_is_never_looked_for_on_the_hub(source: str) -> None:
    assert "does not exist" in refusal(source)


def test_a_missing_file_for_a_split_is_refused() -> None:
    assert "dev.csv does not exist" in refusal(table("a.csv"), validation="dev.csv")


@pytest.mark.parametrize(("split", "value"), [("validation", "dev"), ("test", "test"), ("train", "all")])
def test_a_file_has_no_other_split_than_train(split: str, value: str) -> None:
    message = refusal(table("a.csv"), **{split: value})
    assert f"data.{split}={value}: there is no such split (a.csv has train), and no file of that name" in message


def test_no_source_and_no_file_is_refused_with_what_to_set() -> None:
    assert "set data.source to a file" in refusal(None)


def test_a_split_without_a_source_is_refused() -> None:
    assert "data.validation=dev is not a file" in refusal(None, train=table("a.csv"), validation="dev")
    assert "data.train=a is not a file" in refusal(None, train="a")


def test_a_folder_for_a_split_is_refused() -> None:
    table("set/train.csv")
    assert "set is a folder, not a file" in refusal(None, train="set")


def test_a_folder_called_like_a_split_is_not_taken_for_it() -> None:
    table("train/notes.csv")
    assert texts(loaded(table("reviews.csv"))) == {"train": ["reviews.csv"]}


@pytest.mark.parametrize("setting", ["revision", "config"])
def test_settings_for_the_hub_are_refused_for_files(setting: str) -> None:
    assert f"data.{setting} describes a Hub data set" in refusal(table("a.csv"), **{setting: "main"})


def test_the_fingerprint_follows_the_content_of_every_split() -> None:
    named = {"train": table("a.csv"), "validation": table("b.csv", "one")}
    before = loaded(None, **named).fingerprint
    assert loaded(None, **named).fingerprint == before
    table("b.csv", "two")
    assert loaded(None, **named).fingerprint != before


# -- folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["train.csv", "dev.csv", "test.csv"],
        ["my_train.tsv", "my_valid.tsv", "my_test.tsv"],
        ["Train.csv", "VAL.csv", "TEST.csv"],
        ["sst-train.csv", "sst-validation.csv", "sst-test.csv"],
        ["train/a.csv", "dev/a.csv", "test/a.csv"],
        ["train.csv", "val/a.csv", "test.csv"],
    ],
)
def test_the_splits_of_a_folder_are_found_by_name(names: list[str]) -> None:
    for name in names:
        table(f"set/{name}")
    Path("set/LICENSE.txt").write_text("free")
    Path("set/.train.csv.swp").write_text("")
    data = loaded("set/")
    assert list(data.origins.values()) == [f"set/{name}" for name in names]
    assert list(data.splits) == ["train", "validation", "test"]
    assert data.notes == []


def test_the_file_called_exactly_like_the_split_goes_before_others() -> None:
    for name in ("train.csv", "dev.csv", "out_of_domain_dev.csv"):
        table(f"set/{name}")
    assert loaded("set").origins["validation"] == "set/dev.csv"


def test_all_files_of_a_sub_folder_make_up_the_split() -> None:
    table("set/train/b.csv", "b")
    table("set/train/a.csv", "a")
    data = loaded("set")
    assert texts(data) == {"train": ["a", "b"]}
    assert data.splits["train"]["row"][:] == [1, 2]
    assert data.origins == {"train": "set/train"}


def test_shards_make_up_the_split() -> None:
    table("set/train-00000-of-00002.csv", "a")
    table("set/train-00001-of-00002.csv", "b")
    assert texts(loaded("set")) == {"train": ["a", "b"]}


def test_a_data_set_saved_to_disk_is_a_folder_with_splits() -> None:
    from datasets import Dataset, DatasetDict

    part = Dataset.from_dict({"text": ["a"], "label": [1]})
    DatasetDict({"train": part, "test": part}).save_to_disk("set")
    assert texts(loaded("set")) == {"train": ["a"], "test": ["a"]}


def test_several_files_for_one_split_are_refused() -> None:
    table("set/train_a.csv")
    table("set/train_b.csv")
    assert "set has several files for train: train_a.csv, train_b.csv" in refusal("set")


def test_a_folder_without_training_data_is_refused_with_what_is_there() -> None:
    table("set/reviews.csv")
    table("set/orig/train.csv")
    assert "Found: orig/, reviews.csv." in refusal("set")


def test_the_missing_splits_of_a_folder_are_said_and_test_is_no_substitute() -> None:
    table("set/train.csv")
    table("set/test.csv")
    data = loaded("set")
    assert list(data.splits) == ["train", "test"]
    assert data.notes == ["no validation split: set has train, test"]


@pytest.mark.parametrize("name", ["dev", "valid", "val", "validation"])
def test_all_names_of_the_validation_split_mean_the_same(name: str) -> None:
    table("set/train.csv")
    table("set/dev.csv")
    assert loaded("set", validation=name).origins["validation"] == "set/dev.csv"


def test_a_split_that_the_folder_lacks_is_refused_with_those_it_has() -> None:
    table("set/train.csv")
    message = refusal("set", validation="dev")
    assert "data.validation=dev: there is no such split (set has train)" in message


def test_a_test_split_that_is_asked_for_as_validation_is_not_also_the_test_split() -> None:
    table("set/train.csv")
    table("set/test.csv")
    data = loaded("set", validation="test")
    assert data.origins == {"train": "set/train.csv", "validation": "set/test.csv"}
    assert data.notes == ["no test split: set's 'test' is used otherwise"]


# -- demo data --------------------------------------------------------------------------------


def test_every_demo_data_set_has_three_splits_with_the_same_columns() -> None:
    for name in demo.names():
        data = loaded(f"demo:{name}")
        assert list(data.splits) == ["train", "validation", "test"]
        assert len({tuple(rows.column_names) for rows in data.splits.values()}) == 1
        assert data.origins["train"] == f"demo:{name}, split train"
        assert data.notes == []


def test_an_unknown_demo_data_set_is_refused_with_the_nearest_name() -> None:
    assert "Did you mean demo:reviews?" in refusal("demo:reviwes")


# -- real folders -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("chnsenticorp", {"train": 9600, "validation": 1200, "test": 1200}),
        ("glue/MRPC", {"train": 3667, "validation": 408, "test": 1725}),
        ("glue/STS-B", {"train": 5749, "validation": 1500, "test": 1379}),
        ("banking77", {"train": 10003, "test": 3080}),
        ("imdb_subset", {"train": 3500, "test": 2000}),
    ],
)
def test_real_folders_are_read_whole(shared_data: Path, name: str, rows: dict[str, int]) -> None:
    data = loaded(str(shared_data / name))
    assert {split: len(part) for split, part in data.splits.items()} == rows


def test_the_quotes_of_chnsenticorp_are_text_and_that_is_said(shared_data: Path) -> None:
    path = shared_data / "chnsenticorp"
    assert loaded(str(path)).notes == [
        f"{path}/train.tsv: read without quoting; as quoting, its quotes would join lines and leave 9,146 of 9,600 rows"
    ]
