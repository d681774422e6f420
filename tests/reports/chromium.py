"""Real headless Chromium: looks at a page through a frame of any width, and takes pictures."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--enable-logging=stderr",
)  # fmt: skip

_PROBE = """\
<!doctype html><meta charset="utf-8"><style>body {{ margin: 0 }} iframe {{ border: 0 }}</style>
<iframe id="page" width="{width}" height="{height}" src="{address}"></iframe><pre id="found"></pre>
<script>
const frame = document.getElementById("page");
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement, look = e => frame.contentWindow.getComputedStyle(e);
  const wide = [...page.querySelectorAll("body *")].filter(e => {{
    if (e.closest(".scroll, pre, nav ul, .skip, svg")) return false;
    return e.getBoundingClientRect().right > root.clientWidth + 1 && look(e).position !== "absolute";
  }}).map(e => e.tagName + "." + e.className);
  const line = page.querySelector("svg path[style*='--accent']"), scroll = root.scrollWidth;
  const closed = page.querySelectorAll("details:not([open])").length;
  page.querySelectorAll("details:not([open]) > summary").forEach(e => e.click());
  const focusable = [...page.querySelectorAll("a[href], summary, [tabindex='0']")];
  const reached = focusable.filter(e => {{ e.focus(); return page.activeElement === e; }}).length;
  document.getElementById("found").textContent = JSON.stringify({{
    title: page.title, width: root.clientWidth, scroll: scroll, wide: wide.slice(0, 5),
    scripts: page.querySelectorAll("script, img, iframe, object").length,
    background: look(page.body).backgroundColor, ink: look(page.body).color,
    line: line ? look(line).stroke : null,
    focusable: focusable.length, reached: reached, closed: closed,
    opened: page.querySelectorAll("details[open]").length, scrollAfter: root.scrollWidth,
    smallest: Math.min(...[...page.querySelectorAll("svg text")].map(e => e.getBoundingClientRect().height)),
  }});
}};
</script>
"""


def look_at(page: Path, *, width: int, dark: bool = False) -> dict[str, Any]:
    """What a browser makes of a page in a window so wide; raises where its console complains of the page."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.html"
        address = html.escape(page.resolve().as_uri())
        probe.write_text(_PROBE.format(width=width, height=900, address=address), encoding="utf-8")
        done = _run(probe, "--dump-dom", "--allow-file-access-from-files", "--virtual-time-budget=4000", dark=dark)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == [], complaints
    found = done.stdout.partition('<pre id="found">')[2].partition("</pre>")[0]
    content: dict[str, Any] = json.loads(html.unescape(found))
    return content


def picture(page: Path, output: Path, *, width: int, height: int, dark: bool = False) -> None:
    """A picture of the top of a page."""
    _run(page, f"--window-size={width},{height}", f"--screenshot={output.resolve()}", dark=dark)


def _run(page: Path, *flags: str, dark: bool) -> subprocess.CompletedProcess[str]:
    assert PROGRAM is not None
    # The first asks for a dark page, the second keeps Chromium from darkening the page itself.
    shade = ("--force-dark-mode", "--blink-settings=forceDarkModeEnabled=false") if dark else ()
    with tempfile.TemporaryDirectory() as profile:
        command = [PROGRAM, *_FLAGS, *shade, f"--user-data-dir={profile}", *flags, page.resolve().as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
