"""How long until the first optimizer step of the demo, beside what its bare imports take?

python benchmarks/start_up.py [--rounds 5]

Both are measured in turns, each in a fresh process with files that are already in the machine's memory. The imports are
those that any program with transformers' Trainer on a text classifier and datasets has; what is above them is this
package's: reading the recipe and the data, checking them with their simple rivals, tokenizing, loading the model.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

from common import ROOT, options, save

BARE = """
import nlp_finetune.torchvision_guard  # a torchvision built for another torch would end the import
import datasets, peft, torch
from transformers import AutoTokenizer, BertForSequenceClassification, Trainer, TrainingArguments
"""
DEMO = """
import os, runpy, sys
import torch
step = torch.optim.AdamW.step
def first(self, *arguments, **named):
    step(self, *arguments, **named)
    os._exit(0)
torch.optim.AdamW.step = first
sys.argv = ["run.py", "--recipe", "text_cls", "--demo", "output_dir=" + sys.argv[1]]
runpy.run_path("run.py", run_name="__main__")
"""


def seconds(code: str, *arguments: str) -> float:
    """From the start of a process to its end."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - begin


def main() -> None:
    bare, demo = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(-1, options().rounds):
            pair = seconds(BARE), seconds(DEMO, f"{scratch}/run{number}")
            if number >= 0:  # the first round fills the caches
                bare.append(pair[0])
                demo.append(pair[1])
    above = [whole - part for part, whole in zip(bare, demo, strict=True)]
    rows = [
        [name, len(found), f"{statistics.median(found):.1f}", f"{min(found):.1f} to {max(found):.1f}"]
        for name, found in (("bare imports", bare), ("first step of the demo", demo), ("above its imports", above))
    ]
    save("start_up", "From the start of the process to the first optimizer step", ["", "n", "median s", "range"], rows)


if __name__ == "__main__":
    main()
