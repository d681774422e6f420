"""Chats through a template: what the assistant says is learned, and nothing else."""

import pytest

from nlp_finetune.data import chats
from nlp_finetune.data.sequences import IGNORED
from nlp_finetune.errors import InputError
from tests.tokenizers import letters

PLAIN = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
ENDED = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
THINKING = PLAIN.replace("a:{% endif %}", "a:hm {% endif %}")
FORGETFUL = "{{ messages | length }}" + PLAIN
REFUSING = "{{ raise_exception('roles must alternate') }}"

CHAT = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "sure?"},
    {"role": "assistant", "content": "no"},
]


def tokenizer(template: str | None):
    made = letters()
    made.chat_template = template
    return made


def learned(template: str, chat: list[dict]) -> str:
    made = tokenizer(template)
    ((_, labels),) = chats.encode([chat], [7], made)
    return made.decode([label for label in labels if label != IGNORED])


def test_all_that_the_assistant_says_is_learned_and_how_it_ends() -> None:
    assert learned(ENDED, CHAT) == "yes</s>no</s>"


def test_a_template_without_an_end_mark_gets_one_so_that_generation_stops() -> None:
    assert learned(PLAIN, CHAT) == "yes\nno\n</s>"


def test_a_template_that_opens_an_answer_with_more_than_it_keeps_is_learned_with_its_role() -> None:
    assert learned(THINKING, CHAT[:2]) == "a:yes\n</s>"


def test_prompts_end_where_the_assistant_speaks_next() -> None:
    made = tokenizer(PLAIN)
    found = chats.prompts([CHAT, CHAT[:1]], [1, 2], made)
    assert [made.decode(ids) for ids in found] == ["u:hi\na:yes\nu:sure?\na:", "u:hi\na:"]


@pytest.mark.parametrize(
    ("template", "chat", "message"),
    [
        (None, CHAT, "has no chat template, so messages cannot become text"),
        (PLAIN, CHAT[:1], "row 7: no message has the role 'assistant'"),
        (FORGETFUL, CHAT, "row 7: the chat template writes message 2 differently once others follow"),
        (REFUSING, CHAT, "row 7: the chat template refuses these messages: roles must alternate"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(template: str | None, chat: list[dict], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chats.encode([chat], [7], tokenizer(template))
