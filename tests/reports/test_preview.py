"""The page with rows before and after augmentation, through `check --preview`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nlp_finetune.reports.preview import differences
from tests.command_line import run
from tests.reports.chromium import PROGRAM, look_at
from tests.reports.test_page import Parsed
from tests.tiny import TINY

ROWS = "text,label\n" + "".join(
    f"<b>row {i}</b> the soup was worth the long wait today,{name}\n" for i in range(20) for name in ("good", "bad")
)


def test_differences_put_together_are_both_texts() -> None:
    before, after = "the soup was good, no doubt", "the broth was was good no doubt"
    parts = differences(before, after)
    assert "".join(words for kind, words in parts if kind != "in") == before
    assert "".join(words for kind, words in parts if kind != "out") == after
    assert ("same", "the") in parts


def test_a_page_shows_rows_as_epochs_see_them_and_escapes_them(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    done = run(
        "check", *TINY, "data.source=rows.csv", "augment.delete=0.3", "augment.probability=0.5",
        "--preview", "page.html", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert "page.html" in done.stdout
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = Parsed(page)
    assert {"script", "b"} & set(found.tags()) == set()
    assert "&lt;b&gt;row" in page
    assert len(re.findall("<dt>epoch", page)) == 3 * len(re.findall("<dt>as it is", page)) == 48
    assert 8 < page.count(">unchanged<") < 40
    assert page.count("<del>") > 8
    assert "<ins>" not in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--preview", "page.html"], "this recipe changes no rows; set augment.delete=0.1"),
        (["augment.delete=0.1", "--preview", "page.txt"], "the name must end in .html"),
        (["augment.delete=0.1", "--preview", "nowhere/page.html"], "no folder nowhere"),
    ],
)
def test_a_page_that_cannot_be_is_refused_before_anything_is_read(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    done = run("check", *TINY, *arguments, cwd=tmp_path)
    assert done.code == 2
    assert says in done.stderr


@pytest.mark.slow
def test_images_stand_in_the_page_itself(tmp_path: Path) -> None:
    done = run("check", "--recipe", "image_cls", "--demo", "task.size=16", "--preview", "page.html", cwd=tmp_path)
    assert done.code == 0, done.stderr
    parsed = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    sources = [str(attributes["src"]) for tag, attributes in parsed.elements if tag == "img"]
    assert len(sources) == 64
    assert len(set(sources)) > 50
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    if PROGRAM is not None:
        found = look_at(tmp_path / "page.html", width=360)
        assert (found["scroll"], found["wide"], found["scripts"]) == (360, [], 64)  # what stands in it are the images
