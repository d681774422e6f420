"""CIFAR-10, 250 training and 60 test images a class: ResNet-18 from nothing, by the kind of its stem.

python benchmarks/cifar10_subset.py [DATA]

`waiting` is the share of the training time that the model waited for images: decoding must not starve it.
"""

from __future__ import annotations

from common import save, shared_data, train

_EPOCHS = 6
MODELS = {
    "stem for small images, 32 px": ["model.checkpoint=scratch:resnet18_small_stem", "task.size=32"],
    "standard stem, 32 px": ["model.checkpoint=scratch:resnet18", "task.size=32"],
}


def main() -> None:
    arguments = [
        "--recipe", "image_cls", f"data.source={shared_data('cifar10_subset')}", "augment.crop=[0.5, 1.0]",
        "optim.learning_rate=0.05", "optim.weight_decay=5e-4", "train.batch_size=64", "train.precision=fp32",
        "train.seed=1",
    ]  # fmt: skip
    rows, found = [], {}
    small, usual = MODELS
    runs = [
        (small, "trainer", "auto", _EPOCHS),
        (usual, "accelerate", "auto", _EPOCHS),
        (usual, "trainer", "auto", 1),
        (usual, "trainer", "0", 1),
    ]
    for name, engine, workers, count in runs:
        settings = (f"train.engine={engine}", f"train.workers={workers}", f"train.epochs={count}")
        metrics = train(*arguments, *MODELS[name], *settings)
        found[f"{name}, {engine}, workers {workers}"] = metrics
        test, figures = metrics["test"], metrics["train"]
        low, high = test["accuracy_ci95"]
        spent = {part: figures["time_split"][part] for part in ("data", "forward", "backward", "optimizer")}
        waiting = spent["data"] / sum(spent.values())
        rows.append(
            [
                name,
                engine,
                count,
                workers,
                f"{test['accuracy']:.4f} ({low:.3f} to {high:.3f})",
                f"{test['top5']:.4f}",
                f"{metrics['baselines']['test']['pixels_logistic']['accuracy']:.4f}",
                f"{figures['seconds']:.0f}",
                figures["samples_per_second"],
                f"{waiting:.1%}",
                f"{figures['peak_memory_mb']:.0f}",
            ]
        )
    header = [
        "model", "engine", "epochs", "workers", "test accuracy (95 % CI)", "top-5", "pixels, logistic", "training s",
        "images/s", "waiting", "peak MB",
    ]  # fmt: skip
    title = "CIFAR-10 subset (2,500 training, 600 test images): ResNet-18 from nothing"
    save("cifar10_subset", title, header, rows, metrics=found)


if __name__ == "__main__":
    main()
