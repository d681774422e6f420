"""Where images come from: class folders, lists of paths, parquet, the demo."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from nlp_finetune.data import FOLDER, image_columns, image_rows, sources
from nlp_finetune.errors import InputError


def picture(file: Path, shade: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (shade, 40, 90)).save(file)


def load(source: Path | str, **more) -> sources.Loaded:
    return sources.load(source=str(source), train="train", validation=None, test=None, images=True, **more)


def read(data: Dataset, column: str = "image", on_corrupt: str = "error", said: list | None = None) -> Dataset:
    rows, _ = image_rows.read(data, column, "train", on_corrupt=on_corrupt, say=(said or []).append)
    return rows


def test_sub_folders_are_classes_at_any_depth(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/more/2.JPG", "dog/1.png", "dog/.hidden.png", "dog/notes.txt"):
        picture(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("x")
    train = load(tmp_path).splits["train"]
    assert list(zip(train["image"], train["label"], strict=True)) == [
        ("cat/1.png", "cat"), ("cat/more/2.JPG", "cat"), ("dog/1.png", "dog"),
    ]  # fmt: skip
    assert read(train)["image"][2]["path"] == str(tmp_path / "dog/1.png")


def test_train_val_and_test_folders_are_splits(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        picture(tmp_path / split / "a" / "1.png")
    loaded = load(tmp_path)
    assert list(loaded.splits) == ["train", "validation", "test"]
    assert loaded.origins["validation"] == str(tmp_path / "val")


def test_a_folder_of_images_alone_has_no_labels(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    rows, _ = sources.read_file(str(tmp_path), images=True)
    assert rows.column_names == ["image", FOLDER, "row"]
    rows, _ = sources.read_file(str(tmp_path / "1.png"), images=True)
    assert rows["image"][:] == ["1.png"]


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "stray.png")
    with pytest.raises(InputError, match=r"stray\.png.*beside the class folders a"):
        load(tmp_path)


def test_images_to_validate_on_need_images_to_train_on(tmp_path: Path) -> None:
    picture(tmp_path / "val" / "a" / "1.png")
    with pytest.raises(InputError, match="no train/"):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_paths_in_a_list_start_from_the_list(kind: str, tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "1.png")
    content = {
        "csv": "file,label\npictures/1.png,a\n",
        "tsv": "file\tlabel\npictures/1.png\ta\n",
        "jsonl": '{"file": "pictures/1.png", "label": "a"}\n',
    }
    (tmp_path / f"list.{kind}").write_text(content[kind])
    train = load(tmp_path / f"list.{kind}").splits["train"]
    assert image_columns.find(train, None, taken=["label"]) == "file"
    assert read(train, "file")["image"][0]["path"] == str(tmp_path / "pictures" / "1.png")


def test_a_column_is_found_by_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("note,scan,label\nx,1.png,a\n")
    train = load(tmp_path / "list.csv").splits["train"]
    assert image_columns.find(train, None, taken=["label"]) == "scan"
    with pytest.raises(InputError, match=r"no column 'img'.*Columns: note, scan, label\."):
        image_columns.find(train, "img", taken=[])


def test_parquet_holds_images_as_content(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(buffer, "PNG")
    pa.parquet.write_table(pa.table({"photo": [buffer.getvalue()], "label": ["a"]}), tmp_path / "raw.parquet")
    train = load(tmp_path / "raw.parquet").splits["train"]
    assert image_columns.find(train, None, taken=["label"]) == "photo"
    assert read(train, "photo")["width"][:] == [6]


def test_parquet_written_by_datasets_keeps_images_and_class_names(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    features = Features({"img": ImageFeature(), "label": ClassLabel(names=["cat", "dog"])})
    made = Dataset.from_dict(
        {"img": [{"path": None, "bytes": (tmp_path / "1.png").read_bytes()}], "label": [1]}, features
    )
    made.to_parquet(str(tmp_path / "d.parquet"))
    train = load(tmp_path / "d.parquet").splits["train"]
    assert train.features["label"].names == ["cat", "dog"]
    assert read(train, image_columns.find(train, None, taken=["label"]))["height"][:] == [10]


def test_a_web_address_and_an_empty_cell_are_refused(tmp_path: Path) -> None:
    for cell, expected in (("https://x.org/1.png", "web address"), ("", "row 2 names no image")):
        (tmp_path / "list.csv").write_text(f"image,label\n1.png,a\n{cell},a\n")
        with pytest.raises(InputError, match=expected):
            read(load(tmp_path / "list.csv").splits["train"])


def test_unusable_images_are_named_in_one_message_or_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    (tmp_path / "2.jpg").write_text("<html>404</html>")
    (tmp_path / "list.csv").write_text("image,label\n1.png,a\n2.jpg,b\nno.png,b\n")
    train = load(tmp_path / "list.csv").splits["train"]
    expected = r"train: 2 of 3 images can't be used.*\n.*row 2: .*2\.jpg: an HTML page.*\n.*row 3: .*no such file"
    with pytest.raises(InputError, match=expected):
        read(train)
    said: list[str] = [""]
    rows, kept = image_rows.read(train, "image", "train", on_corrupt="skip", say=said.append)
    assert (len(rows), kept) == (1, [0])
    assert "are left out" in said[-1]


def test_the_demo_has_all_digits_in_three_splits() -> None:
    loaded = load("demo:digits")
    assert {name: len(rows) for name, rows in loaded.splits.items()} == {"train": 1297, "validation": 200, "test": 300}
    assert set(loaded.splits["train"]["label"]) == set("0123456789")
    contents = [row["bytes"] for rows in loaded.splits.values() for row in rows["image"]]
    assert len(set(contents)) == len(contents)
