"""Take the pictures of docs/report.md: pages of two runs that this script trains, in headless Chromium.

    python docs/screenshots.py [FOLDER]

FOLDER (default: a temporary one) keeps the two runs of the text_cls demo; runs that are there already are
used again. Needs Chromium and Pillow; writes docs/images/*.png.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT))

RUNS = {"demo": ["train.engine=accelerate"], "thirty-steps": ["train.max_steps=30"]}
PICTURES = {
    "report-light": ("report", 1180, 1750, False),
    "report-dark": ("report", 1180, 1750, True),
    "report-phone": ("report", 390, 1500, False),
    "report-77-classes": ("many", 1180, 1300, False),
    "comparison-dark": ("comparison", 1180, 1500, True),
}
"""Name of the picture: page, width, height, dark."""
_COLOURS = 128


def main() -> int:
    """Train what is not there, write the pages, take the pictures."""
    from tests.reports.chromium import PROGRAM, picture

    if PROGRAM is None:
        print("no Chromium here: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        pages = _pages(folder)
        IMAGES.mkdir(parents=True, exist_ok=True)
        for name, (page, width, height, dark) in PICTURES.items():
            file = IMAGES / f"{name}.png"
            picture(pages[page], file, width=width, height=height, dark=dark)
            _shrink(file)
            print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1024} kB")
    return 0


def _pages(folder: Path) -> dict[str, Path]:
    from nlp_finetune.reports.page import write_report
    from tests.reports.made import make_run

    runs = [folder / name for name in RUNS]
    for run, overrides in zip(runs, RUNS.values(), strict=True):
        if not (run / "metrics.json").is_file():
            _command("--recipe", "text_cls", "--demo", *overrides, f"output_dir={run}")
        _command("report", str(run))
    comparison = folder / "comparison.html"
    _command("report", *map(str, runs), "--output", str(comparison))
    # No data set with so many classes is in the package: these figures are random.
    many = write_report(make_run(folder / "77 classes", classes=77, rows=3080, skill=4.5))
    return {"report": runs[0] / "report.html", "comparison": comparison, "many": _scrolled(many)}


def _scrolled(page: Path) -> Path:
    """A copy of a page that begins with its confusion matrix: the scores above it are random."""
    text = page.read_text(encoding="utf-8")
    start, end = text.index("<header>"), text.index("<h3>Confusion matrix</h3>")
    copy = page.with_name("matrix.html")
    opening = '<main id="main" style="padding-top: 1.5rem"><section><div class="card">'
    copy.write_text(text[:start] + opening + text[end:], encoding="utf-8")
    return copy


def _command(*arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "run.py"), *arguments], check=True)


def _shrink(file: Path) -> None:
    from PIL import Image

    with Image.open(file) as image:
        small = image.convert("RGB").quantize(_COLOURS)
    small.save(file, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
