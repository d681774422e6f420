"""Pages in real headless Chromium: light, dark, phone width, keyboard."""

from pathlib import Path

import pytest

from nlp_finetune.reports import page
from nlp_finetune.reports.comparing import compare
from nlp_finetune.reports.reading import read
from tests.reports.chromium import PROGRAM, look_at, picture
from tests.reports.made import HOSTILE, make_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: apt-get install chromium"),
]
PHONE, DESK = 360, 1280


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page with hostile names, one with 77 classes, one of a run that goes on, and a comparison."""
    root = tmp_path_factory.mktemp("pages")
    runs = {
        "hostile": make_run(root / "hostile", names=[*HOSTILE, "x" * 200], rows=300),
        "many": make_run(root / "many", classes=77, rows=2000),
        "running": make_run(root / "running", state="running"),
    }
    found = {name: page.write_report(folder) for name, folder in runs.items()}
    both = [read(make_run(root / name, names=list(HOSTILE), rows=300, seed=i)) for i, name in enumerate("ab")]
    found["comparison"] = root / "comparison.html"
    page.write_comparison(both, [compare(*both)], found["comparison"])
    return found


@pytest.mark.parametrize("name", ["hostile", "many", "running", "comparison"])
def test_a_page_fits_a_phone_without_scrolling_sideways(name: str, pages: dict[str, Path]) -> None:
    found = look_at(pages[name], width=PHONE)
    assert found["width"] == PHONE
    assert found["scroll"] == PHONE, found["wide"]
    assert found["wide"] == []
    assert found["scrollAfter"] == PHONE  # with every part opened
    assert found["smallest"] > 7


@pytest.mark.parametrize("name", ["hostile", "comparison"])
def test_every_part_takes_the_keyboard_and_opens(name: str, pages: dict[str, Path]) -> None:
    found = look_at(pages[name], width=DESK)
    assert found["reached"] == found["focusable"] >= 8
    assert found["opened"] >= found["closed"] > 0


def test_hostile_names_run_nothing(pages: dict[str, Path]) -> None:
    found = look_at(pages["hostile"], width=DESK)
    assert found["scripts"] == 0
    assert found["title"] == "hostile"


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_plots_stand_out_in_light_and_dark(dark: bool, pages: dict[str, Path]) -> None:
    found = look_at(pages["hostile"], width=DESK, dark=dark)
    paper = luminance(found["background"])
    assert (paper < 0.1) == dark

    def contrast(colour: str) -> float:
        low, high = sorted((luminance(colour), paper))
        return (high + 0.05) / (low + 0.05)

    assert contrast(found["ink"]) > 7
    assert contrast(found["line"]) > 3


def test_a_picture_of_a_page_is_not_empty(pages: dict[str, Path], tmp_path: Path) -> None:
    picture(pages["many"], tmp_path / "page.png", width=1200, height=1600)
    assert (tmp_path / "page.png").stat().st_size > 50_000
