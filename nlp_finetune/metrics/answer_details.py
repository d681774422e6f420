"""What stands behind exact match and F1 of answers: by kind of question, confidence, the worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlp_finetune.metrics.answers import Scores
from nlp_finetune.metrics.calibration import calibration
from nlp_finetune.metrics.details import mistake, worst

_KINDS = ("answerable", "unanswerable")
_NONE = "(no answer)"


def details(
    texts: Sequence[str],
    confidence: Sequence[float],
    scores: Scores,
    *,
    questions: Sequence[str],
    golds: Sequence[Sequence[str]],
    rows: Sequence[int],
) -> dict[str, Any]:
    """`groups`, `calibration` against exact match, `mistakes` that share no word with the truth.

    `texts` are the predicted answers, empty for "no answer". Where questions of both kinds are among
    the rows there is a `confusion` too, of answering against having an answer.
    """
    answerable = scores.answerable
    answered = np.array([bool(text) for text in texts])
    groups = []
    for kind, members in zip(_KINDS, (answerable, ~answerable), strict=True):
        if members.any():
            exact, f1 = float(scores.exact[members].mean()), float(scores.f1[members].mean())
            groups.append({"label": kind, "rows": int(members.sum()), "exact_match": exact, "f1": f1})
    found: dict[str, Any] = {
        "groups": groups,
        "calibration": {"of": "answers", **calibration(np.asarray(confidence), scores.exact > 0)},
        "mistakes_by": "confidence",
        "mistakes": worst(
            mistake(
                rows[i], questions[i], " | ".join(dict.fromkeys(golds[i])) or _NONE, texts[i] or _NONE, confidence[i]
            )
            for i in np.flatnonzero(scores.f1 == 0).tolist()
        ),
    }
    if answerable.any() and not answerable.all():
        table = [[int((a & b).sum()) for b in (answered, ~answered)] for a in (answerable, ~answerable)]
        found["confusion"] = {"labels": ["answer", "no answer"], "matrix": table}
    return found
