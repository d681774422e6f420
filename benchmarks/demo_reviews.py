"""The demo of `text_cls`, three seeds: does the model beat a TF-IDF baseline by 5 points?

python benchmarks/demo_reviews.py
"""

from __future__ import annotations

from statistics import mean

from common import options, save, train

SEEDS = (1, 2, 3)


def main() -> None:
    options()
    rows, gains = [], []
    for seed in SEEDS:
        metrics = train("--recipe", "text_cls", "--demo", f"train.seed={seed}")
        scores = {split: metrics[split]["accuracy"] for split in ("validation", "test")}
        rivals = {split: metrics["baselines"][split]["tfidf"]["accuracy"] for split in scores}
        gain = mean(scores[split] - rivals[split] for split in scores)
        gains.append(gain)
        row = [seed]
        for split in scores:
            row += [f"{scores[split]:.3f}", f"{rivals[split]:.3f}"]
        rows.append([*row, f"{100 * gain:+.1f}", f"{metrics['train']['seconds']:.0f}"])
    rows.append(["mean", "", "", "", "", f"{100 * mean(gains):+.1f}", ""])
    header = ["seed", "validation", "TF-IDF", "test", "TF-IDF", "points ahead (both splits)", "training s"]
    save("demo_reviews", "Demo reviews: MiniLM against TF-IDF, accuracy", header, rows)


if __name__ == "__main__":
    main()
