"""Rows that are malformed for their task: one clear message, exit code 2, no traceback, nothing written."""

import json
import re
from pathlib import Path

import pytest

from tests.command_line import run

BERT = (
    "model.checkpoint=scratch:bert",
    "model.tokenizer=train",
    "model.config={hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64,"
    " vocab_size: 600, max_position_embeddings: 64}",
    "train.threads=1",
    "train.max_steps=2",
)
GPT2 = (
    "model.checkpoint=scratch:gpt2",
    "model.tokenizer=train",
    "model.config={vocab_size: 400, n_positions: 64, n_embd: 32, n_layer: 1, n_head: 2}",
    "train.threads=1",
    "train.max_steps=2",
)
RECIPES = {
    "token_cls": (*BERT, "task.max_length=24"),
    "qa": (*BERT, "task.max_length=48", "task.stride=8"),
    "masked_lm": (*BERT, "task.max_length=16"),
    "causal_lm": (*GPT2, "task.block_size=32", "task.cross_documents=false"),
}


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def marked(**span: object) -> str:
    fine = {"text": "Ada B lives here", "spans": [{"start": 0, "end": 3, "label": "PER"}]}
    return lines({**fine, "spans": [{"start": 0, "end": 3, "label": "PER", **span}]}, fine)


def asked(**changes: object) -> str:
    fine = {"question": "When?", "context": "The ferry leaves at noon."}
    answers = {"answers": {"text": ["noon"], "answer_start": [20]}}
    return lines({**fine, **answers, "question": "At what hour?"}, {**fine, **answers, **changes})


USER, ASSISTANT = {"role": "user", "content": "add 1 1"}, {"role": "assistant", "content": "2"}

CASES: dict[str, tuple[str, str, str, str]] = {
    # name: (recipe, file, its content, what the message must say)
    "a span before the text": (
        "token_cls",
        "d.jsonl",
        marked(start=-1),
        r"row 1: the span -1 to 3 \(PER\) is out of r",
    ),
    "a span beyond the text": ("token_cls", "d.jsonl", marked(end=99), "out of range; the text has 16 characters"),
    "a span that ends before it starts": ("token_cls", "d.jsonl", marked(start=3, end=0), "row 1: the span 3 to 0"),
    "an empty span": ("token_cls", "d.jsonl", marked(start=3, end=3), "row 1: the span 3 to 3 .PER. is empty"),
    "a span without a label": ("token_cls", "d.jsonl", marked(label=None), "row 1.*a span is {start, end, label}"),
    "a span of half characters": ("token_cls", "d.jsonl", marked(start=0.5), "row 1.*a span is {start, end, label}"),
    "a span of truth values": (
        "token_cls",
        "d.jsonl",
        lines(*[{"text": "Ada", "spans": [{"start": False, "end": True, "label": "PER"}]}] * 2),
        "row 1.*a span is {start, end, label}",
    ),
    "spans as a text": (
        "token_cls",
        "d.jsonl",
        lines(*[{"text": "Ada", "spans": "0-3:PER"}] * 2),
        "No word has the tag",
    ),
    "spans that are missing": (
        "token_cls",
        "d.jsonl",
        lines({"text": "Ada", "spans": None}, {"text": "Ada", "spans": [{"start": 0, "end": 3, "label": "P"}]}),
        "row 1: no spans.*empty list",
    ),
    "an inside tag that continues nothing": (
        "token_cls",
        "d.bio",
        "a B-X\nb I-X\n\nc O\nd I-X\n",
        r"row 2, word 2 \('d'\): the tag I-X continues no X entity",
    ),
    "an entity that is not ended": ("token_cls", "d.bio", "a B-X\nb O\n\nc S-X\nd E-X\n", "the tag O stands after B-X"),
    "a tag without a type": ("token_cls", "d.bio", "a B-\nb O\n\nc B-X\nd O\n", "B- at train row 1, word 1"),
    "tags in lower case": ("token_cls", "d.jsonl", lines({"tokens": ["a", "b"], "tags": ["b-x", "o"]}), "lower case"),
    "words without tags": ("token_cls", "d.conll", "a\nb\n\nc\n", "No column of tags or spans"),
    "breaks between documents alone": ("token_cls", "d.conll", "-DOCSTART- -X- O O\n\n", "no sentences"),
    "tabs and spaces between columns": ("token_cls", "d.bio", "a\tB-X\nb O\n", "line 2: expected 2 columns.*tabs"),
    "a word that is missing": (
        "token_cls",
        "d.jsonl",
        lines({"tokens": ["a", None], "tags": ["B-X", "O"]}),
        "row 1: column 'tokens' holds None among its words",
    ),
    "a tag that is missing": (
        "token_cls",
        "d.jsonl",
        lines({"tokens": ["a", "b"], "tags": ["B-X", None]}),
        "row 1: column 'tags' holds None, which is no tag",
    ),
    "answers in no context": (
        "qa",
        "d.jsonl",
        lines(*[{"question": "When?", "context": "a b", "answers": {"text": ["dusk"], "answer_start": [0]}}] * 2),
        "in none of the 2 rows an answer stands in its context",
    ),
    "answers as a list of texts": (
        "qa",
        "d.jsonl",
        lines(*[{"question": "When?", "context": "At noon.", "answers": ["noon"]}] * 2),
        "row 1.*expected",
    ),
    "a start that is text": (
        "qa",
        "d.jsonl",
        asked(answers={"text": ["noon"], "answer_start": ["20"]}),
        "line 2: the value of column 'answers' does not fit",
    ),
    "more texts than starts": (
        "qa",
        "d.jsonl",
        asked(answers={"text": ["noon", "The"], "answer_start": [20]}),
        "row 2.*not as many answer_start as text",
    ),
    "a context that is missing": ("qa", "d.jsonl", asked(context=None), "column 'context' has no text in 1 of 2 rows"),
    "questions that none can be answered": (
        "qa",
        "d.jsonl",
        lines(*[{"question": "Who?", "context": "a b", "answers": {"text": [], "answer_start": []}}] * 2),
        "none of the 2 questions has an answer",
    ),
    "a paragraph without questions": (
        "qa",
        "d.json",
        json.dumps({"data": [{"paragraphs": [{"context": "a b"}]}]}),
        "article 1, paragraph 1: expected an object with a list called qas",
    ),
    "a message without a role": (
        "causal_lm",
        "d.jsonl",
        lines({"messages": [{"content": "x"}]}, {"messages": [USER, ASSISTANT]}),
        "row 1: message 1 has no role",
    ),
    "a completion that is blank": (
        "causal_lm",
        "d.jsonl",
        lines({"prompt": "a", "completion": " "}, {"prompt": "b", "completion": "c"}),
        "column 'completion' is empty in 1 of 2 rows .first: row 1",
    ),
    "a prompt that is missing": (
        "causal_lm",
        "d.jsonl",
        lines({"prompt": None, "completion": "x"}, {"prompt": "b", "completion": "c"}),
        "column 'prompt' has no text in 1 of 2 rows",
    ),
    "a text file without a word": ("causal_lm", "d.txt", "\n \n\n", "d.txt is empty"),
    "texts of invisible characters": ("masked_lm", "d.txt", "\u200b\n\u200b\n\u200b\n", "leaves nothing to learn from"),
}


@pytest.mark.parametrize("name", CASES)
def test_malformed_rows_get_one_message_and_write_nothing(name: str, tmp_path: Path) -> None:
    recipe, file, content, expected = CASES[name]
    (tmp_path / file).write_text(content, encoding="utf-8")
    done = run("--recipe", recipe, *RECIPES[recipe], f"data.source={file}", "output_dir=run", cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    message = done.stderr[done.stderr.index("error: ") :]
    assert re.search(expected, message, re.DOTALL), message
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_answers_that_stand_elsewhere_are_counted_and_reported(tmp_path: Path) -> None:
    fine = [
        {"question": f"When {i}?", "context": "The ferry leaves at noon.", "answers": ["noon", 20]} for i in range(6)
    ]
    rows = [
        *fine,
        {"question": "Who?", "context": "The ferry leaves at noon.", "answers": ["dusk", 3]},
        {"question": "What?", "context": "The ferry leaves at noon.", "answers": ["ferry", 0]},
    ]
    keyed = [{**row, "answers": {"text": [row["answers"][0]], "answer_start": [row["answers"][1]]}} for row in rows]
    (tmp_path / "d.jsonl").write_text(lines(*keyed))
    done = run("check", "--recipe", "qa", *RECIPES["qa"], "data.source=d.jsonl", cwd=tmp_path)
    assert done.code == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert "1 of 8 answers do not stand at their answer_start, nor once elsewhere in the context (row 7)" in shown
    assert "1 of 8 answers do not stand at their answer_start (row 8); their text occurs once" in shown
