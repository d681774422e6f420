"""Chats as token sequences, through the tokenizer's own template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nlp_finetune.data.sequences import IGNORED, Labelled, ended
from nlp_finetune.errors import InputError

Message = Mapping[str, str]
ASSISTANT = "assistant"


def encode(chats: Sequence[Sequence[Message]], numbers: Sequence[int], tokenizer: Any) -> list[Labelled]:
    """Token ids of chats and their labels: what the assistant says is learned, the rest is given.

    `numbers` are the rows, for messages. Raises `InputError` if there is no template, if it can't take a
    chat, and for a chat in which the assistant says nothing.
    """
    return [_encode_one(chat, tokenizer, row) for chat, row in zip(chats, numbers, strict=True)]


def prompts(chats: Sequence[Sequence[Message]], numbers: Sequence[int], tokenizer: Any) -> list[list[int]]:
    """Token ids after which the assistant speaks next; what it says at the end of a chat is left out."""
    texts = [render(_until_answer(chat), row, tokenizer, answer=True) for chat, row in zip(chats, numbers, strict=True)]
    return [list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in texts]


def _until_answer(chat: Sequence[Message]) -> Sequence[Message]:
    said = len(chat)
    while said > 1 and chat[said - 1]["role"] == ASSISTANT:
        said -= 1
    return chat[:said]


def _encode_one(chat: Sequence[Message], tokenizer: Any, row: int) -> Labelled:
    text = render(chat, row, tokenizer)
    spans = [_span(chat, turn, text, row, tokenizer) for turn, m in enumerate(chat) if m["role"] == ASSISTANT]
    if not spans:
        raise InputError(f"row {row}: no message has the role {ASSISTANT!r}, so there is nothing to learn from it.")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = list(encoded["input_ids"])
    labels = [
        token if any(start <= begin < end for start, end in spans) else IGNORED
        for token, (begin, _) in zip(ids, encoded["offset_mapping"], strict=True)
    ]
    last = [label for label, (begin, _) in zip(labels, encoded["offset_mapping"], strict=True) if begin >= spans[-1][0]]
    if chat[-1]["role"] == ASSISTANT and tokenizer.eos_token_id not in last:
        # A template that does not end what the assistant says would teach it never to stop.
        ids, labels = ended(ids, tokenizer), ended(labels, tokenizer)
    return ids, labels


def _span(chat: Sequence[Message], turn: int, text: str, row: int, tokenizer: Any) -> tuple[int, int]:
    """Where in the rendered chat the assistant's words of a turn begin and end, its end mark included."""
    end = render(chat[: turn + 1], row, tokenizer)
    for answer in (True, False):
        # Some templates open an answer with more than they keep of it (an empty thought, say).
        start = render(chat[:turn], row, tokenizer, answer=answer) if turn else ""
        if text.startswith(end) and end.startswith(start):
            return len(start), len(end)
    raise InputError(
        f"row {row}: the chat template writes message {turn + 1} differently once others follow, so what the "
        "assistant says cannot be told apart. Split the chat so that each ends with its only answer."
    )


def render(chat: Sequence[Message], row: int, tokenizer: Any, *, answer: bool = False) -> str:
    """A chat as the template writes it, with `answer` up to where the assistant speaks next.

    Raises `InputError` if there is no template or it refuses the chat.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise InputError(
            f"The tokenizer ({type(tokenizer).__name__}) has no chat template, so messages cannot become text. "
            "Take a checkpoint made for chats, or give prompt and completion columns instead of messages."
        )
    try:
        text: str = tokenizer.apply_chat_template([dict(m) for m in chat], tokenize=False, add_generation_prompt=answer)
    except TemplateError as error:
        raise InputError(f"row {row}: the chat template refuses these messages: {error}.") from error
    return text
