"""Handwritten digits as a demo data set: 1,797 real images of 8 x 8 grey pixels, inside scikit-learn.

From the UCI ML repository (Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits).
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa

NAME = "digits"
_SEED = 0
_HELD_OUT = {"validation": 200, "test": 300}


def tables() -> dict[str, pa.Table]:
    """Splits `train`, `validation` and `test` (1,297 / 200 / 300 rows), each with `image` and `label`.

    `image` is a PNG file's content, as `datasets.Image` stores it. The rows are drawn once, whatever the
    seed of a run.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(_SEED).permutation(len(data.images))
    tables, start = {}, 0
    for split, count in {**_HELD_OUT, "train": len(order)}.items():
        images, labels = [], []
        for i in order[start : start + count]:
            buffer = io.BytesIO()
            # Pixels go from 0 to 16.
            Image.fromarray(np.minimum(data.images[i] * 16, 255).astype(np.uint8)).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
            labels.append(str(data.target[i]))
        start += count
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        tables[split] = pa.table({"image": pa.array(images, kind), "label": pa.array(labels)})
    return {split: tables[split] for split in ("train", *_HELD_OUT)}
