"""The processes of `images.py`: a run of this package on a folder of images, or transformers.Trainer on the same."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from speed_workers import STEPS, Gate, built_run, keep_freed_memory, threads

BATCH = 32
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_REST_S = 0.1


class ImageGate(Gate):
    """A gate that counts images, the time in which the model waits for them, and what loading processes use."""

    def __init__(self, about: dict[str, Any]) -> None:
        super().__init__(about)
        self.loading = self.waited = self.mark = 0.0
        self.images = 0

    def watch(self, model: Any) -> None:
        def count(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
            self.images += len(inputs["pixel_values"])

        model.register_forward_pre_hook(count, with_kwargs=True)

    def counted(self) -> dict[str, int]:
        return {"rows": self.images}

    def callbacks(self) -> list[Any]:
        """What measures waiting, and what closes the gate."""
        from transformers import TrainerCallback

        gate = self

        class Waiting(TrainerCallback):  # type: ignore[misc]
            def on_step_begin(self, *args: Any, **others: Any) -> None:
                gate.waited += time.perf_counter() - gate.mark

            def on_step_end(self, *args: Any, **others: Any) -> None:
                gate.mark = time.perf_counter()

        return [Waiting(), self.callback()]

    def answer(self, content: dict[str, Any]) -> None:
        if "seconds" in content:
            loading, rested = self._until_at_rest()
            content |= {"seconds": rested - self.seconds, "cpu": content["cpu"] + loading - self.loading}
            content["waited"] = self.waited
        super().answer(content)

    def wait(self) -> None:
        self.loading = _used_by_children()
        super().wait()
        self.waited, self.mark, self.images = 0.0, time.perf_counter(), 0

    def _until_at_rest(self) -> tuple[float, float]:
        """CPU seconds of the loading processes once they have nothing more to load, and when that was."""
        used, at = _used_by_children(), time.perf_counter()
        while time.perf_counter() < at + _REST_S:
            time.sleep(_REST_S / 5)
            now = _used_by_children()
            if now > used:
                used, at = now, time.perf_counter()
        return used, at


def _used_by_children() -> float:
    """CPU seconds of the processes that this one has started and that run."""
    total = 0.0
    for thread in Path("/proc/self/task").iterdir():
        for child in (thread / "children").read_text().split():
            try:
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            total += (int(fields[11]) + int(fields[12])) * _TICK
    return total


def main() -> None:
    about = json.loads(sys.argv[1])
    (rival if about.get("rival") else ours)(about, ImageGate(about))


def ours(about: dict[str, Any], gate: ImageGate) -> None:
    """A run of this package, all of its callbacks included."""
    from nlp_finetune.engines.hf_trainer import fit

    settings = {
        "model.checkpoint": "scratch:resnet18", "data.source": about["data"], "train.batch_size": BATCH,
        "train.max_steps": STEPS, "train.eval_every": STEPS, "train.save_every": STEPS, "train.log_every": 500,
        **{f"train.{name}": value for name, value in about["train"].items()},
    }  # fmt: skip
    built = built_run("image_cls", settings, about["folder"])
    gate.watch(built.job.model)
    built.job.callbacks.extend(gate.callbacks())
    fit(built.job)


def rival(about: dict[str, Any], gate: ImageGate) -> None:
    """transformers.Trainer with torchvision's transforms, as transformers' run_image_classification.py has them."""
    keep_freed_memory()
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

    torch.set_num_threads(threads())
    torch.manual_seed(0)
    photos = Photos(Path(about["data"]))
    config = ResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", embedding_size=64,
        num_labels=len(photos.classes),
    )  # fmt: skip
    model = ResNetForImageClassification(config)
    gate.watch(model)
    arguments = TrainingArguments(
        about["folder"], max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=0.01, optim="sgd",
        use_cpu=True, bf16=bool(about.get("bf16")), dataloader_num_workers=about["workers"],
        dataloader_persistent_workers=about["workers"] > 0, remove_unused_columns=False, logging_steps=500,
        save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=photos, callbacks=gate.callbacks()).train()


class Photos:
    """Images of class folders, read, cropped, mirrored and normalised by torchvision."""

    def __init__(self, folder: Path) -> None:
        from torchvision import transforms

        self.files = sorted(folder.glob("*/*.jpg"))
        self.classes = sorted({file.parent.name for file in self.files})
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> dict[str, Any]:
        from PIL import Image

        file = self.files[number]
        with Image.open(file) as image:
            return {
                "pixel_values": self.transform(image.convert("RGB")),
                "labels": self.classes.index(file.parent.name),
            }


if __name__ == "__main__":
    main()
