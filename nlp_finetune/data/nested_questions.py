"""SQuAD's nested JSON, articles of paragraphs of questions, as one flat row a question.

    {"data": [{"title": ..., "paragraphs": [{"context": ..., "qas": [{"question": ..., "answers": [...]}]}]}]}

Versions 1 and 2 (`is_impossible`), and CMRC and DRCD, which follow them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nlp_finetune.errors import InputError

_QUESTION_KEYS = ("id", "question", "answers", "is_impossible")


def is_nested(document: Any) -> bool:
    """Whether a JSON document is an object whose `data` are articles with paragraphs."""
    articles = document.get("data") if isinstance(document, dict) else None
    return isinstance(articles, list) and any(isinstance(a, dict) and "paragraphs" in a for a in articles)


def flatten(document: dict[str, Any], *, path: str) -> list[dict[str, Any]]:
    """Rows with `id`, `title`, `context`, `question`, `answers` and `is_impossible`, where they occur.

    `answers` becomes `{"text": [...], "answer_start": [...]}`; it is null where a question has none.
    Raises `InputError` naming article, paragraph and question for any other structure.
    """
    rows = []
    for title, context, question, where in _questions(document["data"], path):
        row = {"title": title} if title is not None else {}
        row |= {"context": context}
        row |= {key: question[key] for key in _QUESTION_KEYS if key in question}
        if row.get("answers") is not None:
            row["answers"] = _columns(row["answers"], where)
        rows.append(row)
    return rows


def _questions(articles: list[Any], path: str) -> Iterator[tuple[Any, Any, dict[str, Any], str]]:
    """Title, context and question, and where they stand."""
    for a, article in enumerate(articles, start=1):
        for p, paragraph in enumerate(_part(article, "paragraphs", f"{path}, article {a}"), start=1):
            where = f"{path}, article {a}, paragraph {p}"
            for q, question in enumerate(_part(paragraph, "qas", where), start=1):
                place = f"{where}, question {q}"
                if not isinstance(question, dict):
                    raise InputError(f"{place}: expected an object with question and answers.")
                yield article.get("title"), paragraph.get("context"), question, place


def _part(parent: Any, key: str, where: str) -> list[Any]:
    part = parent.get(key) if isinstance(parent, dict) else None
    if not isinstance(part, list):
        raise InputError(f"{where}: expected an object with a list called {key}.")
    return part


def _columns(answers: Any, where: str) -> dict[str, list[Any]]:
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise InputError(f"{where}: answers must be a list of objects with text and answer_start.")
    return {key: [answer.get(key) for answer in answers] for key in ("text", "answer_start")}
