"""What language models learn from: plain texts, prompts with completions, or chats; found and read.

Canonical columns: `text`, or `prompt` and `completion`, or `messages` (a list of `{"role", "content"}`),
and `row`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nlp_finetune.data import ROW, texts
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

Kind = Literal["text", "completion", "chat"]

_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("input", "output"),
    ("input", "target"),
    ("source", "target"),
)
_CHATS = ("messages", "conversation", "conversations", "chat")
_NEEDS: dict[Kind, tuple[str, ...]] = {
    "text": ("text",),
    "completion": ("prompt", "completion"),
    "chat": ("messages",),
}


@dataclass(frozen=True)
class Layout:
    """What rows hold: their kind, and the data's column for each canonical one."""

    kind: Kind
    columns: dict[str, str]

    @property
    def prompt(self) -> str:
        """The column that generation starts from."""
        return self.columns[_NEEDS[self.kind][0]]

    def describe(self) -> str:
        """One line for the user."""
        if self.kind == "text":
            return f"text: column {self.columns['text']}"
        if self.kind == "chat":
            return f"chat: column {self.columns['messages']}, learned from what the assistant says"
        return f"prompt: {self.columns['prompt']}; completion: {self.columns['completion']}, learned from alone"


def find(data: Dataset, asked: Mapping[str, str | None]) -> Layout:
    """The columns asked for (`text`, `prompt`, `completion`, `messages`), else those found by usual names.

    Chats are looked for first, then pairs, then a text. Raises `InputError` that lists the columns.
    """
    given = {name: column for name, column in asked.items() if column is not None}
    for name, column in given.items():
        if column not in data.column_names:
            raise InputError(f"task.{name}: no column {column!r}. {texts.describe_columns(data)}")
    if given:
        kind: Kind = "chat" if "messages" in given else "text" if "text" in given else "completion"
        missing = [name for name in _NEEDS[kind] if name not in given]
        if missing:
            raise InputError(f"task.{missing[0]} is needed too: a prompt and its completion are two columns.")
        return Layout(kind, given)
    by_name = {name.strip().lower(): name for name in data.column_names}
    for name in _CHATS:
        if name in by_name and _holds_messages(data, by_name[name]):
            return Layout("chat", {"messages": by_name[name]})
    strings = set(texts.string_columns(data))
    for first, second in _PAIRS:
        pair = [by_name[name] for name in (first, second) if by_name.get(name) in strings]
        if len(pair) == 2:
            return Layout("completion", dict(zip(_NEEDS["completion"], pair, strict=True)))
    return text_layout(data, None)


def text_layout(data: Dataset, asked: str | None) -> Layout:
    """The text column asked for, else one found by a usual name."""
    if asked is not None:
        return find(data, {"text": asked})
    found = texts.find(data, None, taken=None)
    if len(found) > 1:
        raise InputError(f"Which column is the text? {texts.describe_columns(data)} Set task.text=COLUMN.")
    return Layout("text", {"text": found[0]})


def _holds_messages(data: Dataset, column: str) -> bool:
    return any(_problem(messages) is None for messages in data[: min(len(data), 20)][column])


def has_targets(data: Dataset, layout: Layout) -> bool:
    """Whether a split has all columns that scoring needs."""
    return all(column in data.column_names for column in layout.columns.values())


def read(
    data: Dataset, layout: Layout, split: str, *, say: Callable[[str], None], labelled: bool = True
) -> dict[str, list[Any]]:
    """Canonical columns of a split as lists; without `labelled` only what generation starts from.

    Texts without a word are left out, and `say` tells how many. Raises `InputError` for what is missing
    or malformed, with split, column and row.
    """
    if layout.kind == "chat":
        return _read_chats(data, layout.columns["messages"], split)
    names = list(_NEEDS[layout.kind] if labelled else _NEEDS[layout.kind][:1])
    raw = texts.read(data, [layout.columns[name] for name in names], split)
    found = {ROW: raw[ROW], **dict(zip(names, (raw[c] for c in ("text", "text_pair") if c in raw), strict=True))}
    if layout.kind == "text":
        return _without_blank(found, split, say)
    _refuse_blank_completions(found, layout, split)
    return found


def _without_blank(columns: dict[str, list[Any]], split: str, say: Callable[[str], None]) -> dict[str, list[Any]]:
    kept = [i for i, text in enumerate(columns["text"]) if text.strip()]
    if not kept:
        raise InputError(f"{split}: no row has any text.")
    blank = len(columns["text"]) - len(kept)
    if blank:
        say(f"{split}: {blank:,} rows without text left out")
    return {name: [values[i] for i in kept] for name, values in columns.items()}


def _refuse_blank_completions(columns: dict[str, list[Any]], layout: Layout, split: str) -> None:
    pairs = zip(columns[ROW], columns.get("completion", []), strict=False)
    bad = [row for row, completion in pairs if not completion.strip()]
    if bad:
        raise InputError(
            f"{split}: column {layout.columns['completion']!r} is empty in {len(bad)} of {len(columns[ROW])} rows "
            f"(first: row {bad[0]}): there is nothing to learn from them. Fill or remove them."
        )


def _read_chats(data: Dataset, column: str, split: str) -> dict[str, list[Any]]:
    if column not in data.column_names:
        raise InputError(f"{split}: no column {column!r}. {texts.describe_columns(data)}")
    chats = []
    for row, value in zip(data[ROW], data[column], strict=True):
        # What `predict --text` gives is something that a user says.
        messages = [{"role": "user", "content": value}] if isinstance(value, str) else value
        problem = _problem(messages)
        if problem is not None:
            raise InputError(f"{split}: column {column!r}, row {row}: {problem}.")
        chats.append([{key: part for key, part in one.items() if part is not None} for one in messages])
    return {ROW: list(data[ROW]), "messages": chats}


def _problem(messages: Any) -> str | None:
    """What is wrong with the messages of one chat; None if nothing is."""
    if not isinstance(messages, list) or not messages:
        return 'expected a list of messages like {"role": "user", "content": "..."}'
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            return f"message {number} is no object with role and content"
        for key in ("role", "content"):
            if not isinstance(message.get(key), str) or not message[key].strip():
                return f"message {number} has no {key}"
    return None


def shown(row: Mapping[str, Any]) -> str:
    """A canonical row as one text."""
    if "messages" in row:
        return "\n".join(f"{message['role']}: {message['content']}" for message in row["messages"])
    return row["text"] if "text" in row else "\n".join(filter(None, (row["prompt"], row.get("completion"))))
