"""Texts, prompts with completions and chats: found by name, read strictly."""

import pytest
from datasets import Dataset

from nlp_finetune.data import documents
from nlp_finetune.errors import InputError

CHAT = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Good morning."}]
NOTHING = {"text": None, "prompt": None, "completion": None, "messages": None}


def data(**columns) -> Dataset:
    size = len(next(iter(columns.values())))
    return Dataset.from_dict({**columns, "row": list(range(1, size + 1))})


def read(rows: Dataset, **settings) -> dict:
    return documents.read(rows, documents.find(rows, NOTHING), "train", **{"say": lambda line: None, **settings})


@pytest.mark.parametrize(
    ("columns", "kind", "found"),
    [
        ({"text": ["a"]}, "text", {"text": "text"}),
        ({"story": ["a"], "id": ["1"]}, "text", {"text": "story"}),
        ({"prompt": ["a"], "completion": ["b"]}, "completion", {"prompt": "prompt", "completion": "completion"}),
        ({"Instruction": ["a"], "output": ["b"]}, "completion", {"prompt": "Instruction", "completion": "output"}),
        ({"messages": [CHAT], "prompt": ["a"]}, "chat", {"messages": "messages"}),
        ({"messages": ["not a chat"], "text": ["a"]}, "text", {"text": "text"}),
    ],
)
def test_columns_are_found_by_name(columns: dict, kind: str, found: dict) -> None:
    layout = documents.find(data(**columns), NOTHING)
    assert (layout.kind, layout.columns) == (kind, found)


def test_what_is_asked_for_goes_before_what_is_usual() -> None:
    rows = data(text=["a"], q=["b"], a=["c"])
    layout = documents.find(rows, {**NOTHING, "prompt": "q", "completion": "a"})
    assert (layout.kind, layout.prompt) == ("completion", "q")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"text": "body"}, r"task\.text: no column 'body'\. Columns: text, other\."),
        ({"prompt": "text"}, r"task\.completion is needed too"),
    ],
)
def test_columns_that_do_not_fit_are_refused(asked: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        documents.find(data(text=["a"], other=["b"]), {**NOTHING, **asked})


def test_texts_without_a_word_are_left_out_and_counted() -> None:
    said: list[str] = []
    found = read(data(text=["one", "", " \n", "two"]), say=said.append)
    assert found == {"text": ["one", "two"], "row": [1, 4]}
    assert said == ["train: 2 rows without text left out"]


def test_only_the_prompt_is_read_where_nothing_is_to_be_scored() -> None:
    rows = data(prompt=["a"], completion=["b"])
    layout = documents.find(rows, NOTHING)
    found = documents.read(rows.remove_columns("completion"), layout, "input", say=print, labelled=False)
    assert found == {"prompt": ["a"], "row": [1]}


def test_a_text_in_place_of_a_chat_is_what_a_user_says() -> None:
    layout = documents.Layout("chat", {"messages": "messages"})
    found = documents.read(data(messages=["Hello?"]), layout, "input", say=print)
    assert found["messages"] == [CHAT[:1]]


def test_keys_that_a_message_lacks_stay_away() -> None:
    named = [{"role": "user", "content": "Hello?", "name": "Ada"}]
    assert read(data(messages=[named, CHAT]))["messages"] == [named, CHAT]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["", " "]}, "train: no row has any text"),
        ({"text": ["a", None]}, r"column 'text' has no text in 1 of 2 rows \(first: row 2\)"),
        ({"prompt": ["a", "b"], "completion": ["c", " "]}, r"'completion' is empty in 1 of 2 rows \(first: row 2\)"),
        ({"messages": [CHAT, []]}, r"'messages', row 2: expected a list of messages"),
        ({"messages": [CHAT, [{"role": "user", "content": None}]]}, "row 2: message 1 has no content"),
        ({"messages": [CHAT, [{"role": None, "content": "x"}]]}, "row 2: message 1 has no role"),
    ],
)
def test_malformed_rows_are_named(columns: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(data(**columns))


def test_a_row_is_shown_as_one_text() -> None:
    assert documents.shown({"prompt": "a", "completion": "b"}) == "a\nb"
    assert documents.shown({"messages": CHAT}) == "user: Hello?\nassistant: Good morning."
