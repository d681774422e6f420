"""The process a run lives in."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_downloads_show_a_bar_and_loading_does_not() -> None:
    code = (
        "from nlp_finetune import joining; joining.start();"
        "from huggingface_hub.utils import are_progress_bars_disabled as hidden;"
        "from transformers.utils.logging import is_progress_bar_enabled as shown;"
        "from nlp_finetune.models.quiet import quiet;"
        "before = (hidden(), shown());\n"
        "with quiet(): inside = hidden()\n"
        "print(before, inside, hidden())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "(False, False) True False"
