"""What tasks have in common that predict tokens: sums over a row's windows, and measures of their loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nlp_finetune.data import ROW
from nlp_finetune.tasks.base import BaseTask

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from nlp_finetune.metrics.details import RowScores


class LanguageModelTask(BaseTask):
    """A task whose predictions are `[loss, tokens, tokens right]`, summed over a row."""

    @abstractmethod
    def scores(self, sums: np.ndarray) -> dict[str, float]:
        """Metrics from the predictions of all rows, `[rows, 3]`."""

    def merge(self, windows: list[Any]) -> Any:
        """Sums over the windows of a text; zeros where it has none."""
        import numpy as np

        return np.sum([np.zeros(3), *windows], axis=0)

    def metrics(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, float]:
        import numpy as np

        return self.scores(np.stack(predictions))

    def resampled_metric(self, name: str, predictions: Sequence[Any], rows: Dataset) -> Callable[[np.ndarray], float]:
        import numpy as np

        sums = np.stack(predictions)
        return lambda positions: self.scores(sums[positions])[name]

    def row_scores(self, predictions: Sequence[Any], rows: Dataset) -> RowScores:
        import numpy as np

        from nlp_finetune.metrics.details import row_scores

        sums = np.stack(predictions)
        return row_scores("loss", sums[:, 0], sums[:, 1], greater=False)

    def evidence(self, predictions: Sequence[Any], rows: Dataset) -> dict[str, Any]:
        import numpy as np

        from nlp_finetune.metrics.details import language

        return language(np.stack(predictions), text=lambda i: self.row_text(rows[i]), rows=rows[ROW][:])

    def decode(self, predictions: Sequence[Any], rows: Dataset) -> list[dict[str, Any]]:
        return [self.metrics([sums], rows) for sums in predictions]

    def example(self) -> dict[str, Any]:
        return {"text": "Once upon a time there was a fox who could not sleep."}
