"""The Python that a card shows, run as it stands, for each kind of model."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nlp_finetune.runs.card.usage import snippet
from nlp_finetune.runs.folder import read_json
from tests.runs.card_facts import full

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "soup", "was", "cold", "good", "worth", "wait", "."]
LABELS = ["bad", "good", "so-so"]
SMALL = {
    "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 64,
}  # fmt: skip


def bert(kind: str, **settings: Any) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        import transformers

        torch.manual_seed(0)
        config = transformers.BertConfig(**SMALL, **settings)
        getattr(transformers, f"BertFor{kind}")(config).save_pretrained(folder)
        transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)

    return save


def gpt(folder: Path) -> None:
    import transformers

    config = transformers.GPT2Config(
        vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=64, bos_token_id=2, eos_token_id=3
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)


def t5(folder: Path) -> None:
    import transformers

    config = transformers.T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    transformers.BertTokenizer(vocabulary, model_input_names=["input_ids", "attention_mask"]).save_pretrained(folder)


def resnet(folder: Path) -> None:
    import transformers
    from PIL import Image

    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=dict(enumerate(LABELS))
    )
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(folder)
    Image.new("RGB", (40, 30), (200, 10, 10)).save(folder / "image.png")


NAMED = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
MODELS: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "one text": (bert("SequenceClassification", **NAMED), ["good soup"], "label"),
    "a pair": (bert("SequenceClassification", **NAMED), ["good soup", "cold soup"], "label"),
    "many labels": (
        bert("SequenceClassification", problem_type="multi_label_classification", **NAMED), ["good soup"], "["
    ),
    "a number": (bert("SequenceClassification", num_labels=1, problem_type="regression"), ["good soup"], "score"),
    "tokens": (bert("TokenClassification", **NAMED), ["good soup"], "entity_group"),
    "a masked word": (bert("MaskedLM"), ["the soup was cold ."], "token_str"),
    "an answer": (bert("QuestionAnswering"), ["was the soup good", "the soup was cold ."], ""),
    "a choice": (bert("MultipleChoice"), ["the soup was", "cold", "good", "worth the wait"], ""),
    "next words": (gpt, ["the soup was"], "generated_text"),
    "another text": (t5, ["the soup was"], ""),
    "an image": (resnet, [], "label"),
}  # fmt: skip


def run(code: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "card", "exec"), {"__name__": "card"})
    return printed.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # of libraries, in code that is the user's
@pytest.mark.parametrize("what", MODELS)
def test_the_snippet_of_a_card_runs_as_it_stands(what: str, folder: Path) -> None:
    save, examples, printed = MODELS[what]
    save(folder)
    facts = full(config=read_json(folder / "config.json"), task={"facts": {"thresholds": [0.5, 0.4, 0.3]}})
    code = snippet(facts, str(folder), examples=examples)
    assert "nlp_finetune" not in code
    assert printed in run(code)


@pytest.mark.filterwarnings("ignore")
def test_the_thresholds_of_a_model_with_many_labels_are_in_its_snippet(folder: Path) -> None:
    bert("SequenceClassification", problem_type="multi_label_classification", **NAMED)(folder)
    facts = full(config=read_json(folder / "config.json"), task={"facts": {"thresholds": [0.0, 0.0, 1.1]}})
    printed = run(snippet(facts, str(folder), examples=["good soup"]))
    assert "'bad'" in printed
    assert "'good'" in printed
    assert "so-so" not in printed


def test_a_model_that_nobody_knows_has_no_snippet() -> None:
    assert snippet(full(config={"architectures": ["StrangeModel"]}), "me/x") == ""


def test_texts_of_users_cannot_end_the_string_they_stand_in() -> None:
    code = snippet(full(), "me/x", examples=['"); import os; os.system("true") #\n\\'])
    assert compile(code, "card", "exec")
    assert code.count("\n") == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("context", [None, "context"])
def test_the_snippet_of_a_multiple_choice_model_chooses_among_the_options_of_a_real_row(
    context: str | None, folder: Path
) -> None:
    bert("MultipleChoice")(folder)
    examples = [*(["the wait was good"] if context else []), "the soup was", "cold", "good"]
    task = {"facts": {"columns": {"context": context, "question": "question"}}}
    facts = full(config=read_json(folder / "config.json"), task=task)
    assert run(snippet(facts, str(folder), examples=examples)).strip() in ("cold", "good")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_snippet_of_an_embedding_model_gives_the_cosine_of_two_texts(pooling: str, folder: Path) -> None:
    pytest.importorskip("sentence_transformers")
    import transformers

    from nlp_finetune.models.embeddings import pool, save_for_sentence_transformers

    texts = ["good soup", "the wait was cold"]
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**SMALL)).eval()
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_for_sentence_transformers(folder, pooling=pooling, max_length=32)
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        first, second = pool(model(**inputs).last_hidden_state, inputs["attention_mask"], pooling=pooling)
    recipe = {"task": {"name": "text_embedding", "pooling": pooling}}
    facts = full(config=read_json(folder / "config.json"), recipe=recipe)
    found = run(snippet(facts, str(folder), examples=texts))
    assert f"{float(first @ second):.4f}" in found
