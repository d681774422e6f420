"""What a model card tells, and that nothing in a user's data can break out of its place in it."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from nlp_finetune.errors import InputError
from nlp_finetune.runs import card as cards
from nlp_finetune.runs.card.energy import estimate
from nlp_finetune.runs.card.escaping import Markdown, code, escape, fenced, plain
from nlp_finetune.runs.card.facts import Facts
from tests.runs.card_facts import COMMIT, full, with_labels


def text_of(facts: Facts) -> str:
    return cards.render(facts, title="reviews", address="me/reviews", run="me/reviews")


def header_of(facts: Facts) -> dict[str, Any]:
    return yaml.safe_load(text_of(facts).split("---\n")[1])


def parsed(text: str) -> list[Any]:
    return MarkdownIt("commonmark").enable("table").parse(text.split("---\n", 2)[2])


def headings(text: str) -> list[str]:
    tokens = parsed(text)
    return [following.content for token, following in pairwise(tokens) if token.type == "heading_open"]


def test_the_header_names_base_data_licence_language_and_library() -> None:
    header = header_of(full())
    assert header["base_model"] == "google-bert/bert-base-uncased"
    assert header["base_model_relation"] == "finetune"
    assert header["datasets"] == ["owner/reviews"]
    assert header["license"] == "apache-2.0"
    assert header["language"] == "en"
    assert header["library_name"] == "transformers"
    assert header["pipeline_tag"] == "text-classification"


def test_the_model_index_has_every_score_with_its_split_and_commit() -> None:
    results = ModelCard(text_of(full())).data.eval_results
    assert results is not None
    found = {(one.dataset_split, one.metric_type): one.metric_value for one in results}
    held_out = "train (held-out rows)"
    assert found == {
        ("test", "accuracy"): 0.875, ("test", "macro_f1"): 0.86,
        (held_out, "accuracy"): 0.9, (held_out, "macro_f1"): 0.89,
    }  # fmt: skip
    assert {one.dataset_revision for one in results} == {COMMIT[::-1]}


def test_numpy_scalars_and_nan_never_reach_the_header() -> None:
    np = pytest.importorskip("numpy")
    metrics = {"test": {"rows": 4, "accuracy": np.float64(0.5), "mcc": float("nan"), "rmse": float("inf")}}
    text = text_of(full(metrics=metrics))
    assert "python" not in text.split("---\n")[1]
    assert header_of(full(metrics=metrics))["metrics"] == ["accuracy"]
    assert "nan" not in text.split("---\n")[1]


TOLD = [
    "It gives a text one of 3 labels.",
    f"[google-bert/bert-base-uncased](https://huggingface.co/google-bert/bert-base-uncased), commit `{COMMIT}`",
    f"[owner/reviews](https://huggingface.co/datasets/owner/reviews), commit `{COMMIT[::-1]}`",
    "**accuracy 0.8750** (95 % interval 0.8200 to 0.9200) on 200 test rows.",
    "Simple rivals on the same rows: tfidf 0.6000, majority 0.5000.",
    "| test (200 rows) | **this model** | **0.8750** (0.8200 to 0.9200) | 0.8600 |",
    "| test | tfidf | 0.6000 | 0.5900 |",
    "chosen by validation accuracy",
    "| so-so | 0.5000 | 0.3000 | 0.3750 | 10 |",
    "10 of 100 rows of bad are taken for good",
    "Expected calibration error 0.1234",
    "do not read it as a probability",
    "| 0.9 to 1.0 | 150 | 0.9500 | 0.8300 |",
    "| 3 to 12 | 100 | 0.9100 |",
    "| good | 300 | 90 | Warm soup. |",
    "| train | 640 | owner/reviews, split train |",
    "train: 12.4 % of rows are cut at 64",
    "test: 7 of 200 rows are also in train",
    "1,000 parameters, 10 of them trained (1.0 %)",
    "| `optim.learning_rate` | `2e-05` |",
    "| `train.precision` | `bf16` |",
    "| `loss.name` | `cross_entropy` |",
    "Seed 13, one run",
    "360 s of training steps (40 steps, 25.0 rows/s",
    "Energy, estimated and not measured: 3.20 Wh (4 CPU cores at 8 W each",
    "| hardware | Some CPU; 4 CPU cores; 2 process(es) |",
    "| torch | 2.13.0 |",
    "| 20 | 1.00 | 0.9000 | 0.5000 | 0.8000 |",
    "| 40 (best) | 2.00 | 0.4000 | 0.2000 | 0.9000 |",
    "| train | 20 | 70 | 90 |",
    "`BertForSequenceClassification`, 6 layers, 384 wide",
    "python run.py --recipe text_cls data.test=t.csv output_dir=1",
    "nlp-finetune train --recipe recipe.yaml output_dir=again",
    "Of inputs longer than 64 tokens a part is not read.",
    "Less than half of the rows of these classes are found: so-so.",
    "Base model: apache-2.0",
    "Data: cc-by-4.0",
]


@pytest.mark.parametrize("line", TOLD)
def test_a_card_tells(line: str) -> None:
    assert line in text_of(full())


def test_settings_that_are_not_used_are_not_told() -> None:
    text = text_of(full())
    assert "gamma" not in text
    assert "train.engine" not in text


def test_where_nothing_leaks_that_is_told() -> None:
    check = {**full().check, "findings": []}
    assert "No row of one split is also in another" in text_of(full(check=check))
    assert "No row of one split is also in another" not in text_of(full())


FILES = ("metrics", "config", "check", "details", "environment", "sources", "decisions")


@pytest.mark.parametrize("absent", [(), FILES, *[(name,) for name in FILES]])
def test_what_is_not_known_is_left_out_without_a_trace(absent: tuple[str, ...]) -> None:
    text = text_of(full(**{key: {} for key in absent}))
    body = text.split("---\n", 2)[2]
    assert "None" not in body
    assert "nformation Needed" not in text
    assert "\n\n\n" not in text
    opened = [token.type for token in parsed(text) if token.type != "inline"]
    for closed, following in pairwise(opened):
        assert (closed, following) != ("heading_close", "heading_open"), "a heading with nothing below it"
    assert opened[-1] != "heading_close"


HOSTILE = [
    "<script>alert(1)</script>", "a|b", "`code`", "*bold* _under_", "[link](http://evil.example)", "![i](x)",
    "# heading", "- item", "1. one", "&lt;b&gt;", "\\| \\`", "!!python/object:os.system", "{{ 7*7 }}", "{% raw %}",
    "---", "a: [b", "<!-- hidden", "```", "line\nbreak", "\u202egnp.exe\u202c", "| x | y |", "https://evil.example",
    "</details>", "$$x$$", "~~gone~~", "&#60;b&#62;", "العربية", "标签", "'\"",
]  # fmt: skip


def cells(text: str) -> set[str]:
    """Texts of the cells of all tables, as a reader sees them."""
    tokens = [following for token, following in pairwise(parsed(text)) if token.type == "td_open"]
    return {"".join(child.content for child in token.children or []) for token in tokens}


def test_names_and_texts_stay_in_their_places_and_are_shown_as_they_are() -> None:
    harmless = text_of(with_labels([f"label{i}" for i in range(len(HOSTILE))], ["text"] * len(HOSTILE)))
    text = text_of(with_labels(HOSTILE, HOSTILE[::-1]))
    assert headings(text) == headings(harmless)
    kinds = [[token.type for token in parsed(one)] for one in (harmless, text)]
    assert kinds[0] == kinds[1]
    shown = cells(text)
    for name in HOSTILE:
        assert plain(name) in shown


def test_a_reader_sees_no_html_links_or_pictures_of_the_data() -> None:
    tokens = parsed(text_of(with_labels(HOSTILE, HOSTILE)))
    inside = [child for token in tokens for child in token.children or []]
    assert not [child.content for child in inside if child.type in ("html_inline", "image")]
    links = [child.attrs["href"] for child in inside if child.type == "link_open"]
    assert all(str(link).startswith("https://huggingface.co/") for link in links)
    blocks = [token.content.strip() for token in tokens if token.type == "html_block"]
    assert {re.split(r"[ >]", block)[0] for block in blocks} <= {"<details", "</details", "<!--"}


def test_marks_that_turn_the_direction_of_writing_are_taken_out() -> None:
    assert "\u202e" not in text_of(with_labels(["\u202egnp.exe"], ["\u2066x\u2069"]))


@pytest.mark.parametrize("name", HOSTILE)
def test_names_in_the_header_stay_text(name: str) -> None:
    recipe = {**full().recipe, "name": name}
    sources = {"base": {"kind": "folder", "given": name}, "data": {"kind": "file", "given": name}}
    header = header_of(full(recipe=recipe, sources=sources))
    assert header["model-index"][0]["results"][0]["dataset"]["name"] == f"{plain(name)} data"
    assert header["library_name"] == "transformers"


def test_a_base_that_is_a_folder_is_named_without_its_path() -> None:
    sources = {
        "base": {"kind": "folder", "given": "/home/me/models/ours"},
        "data": {"kind": "file", "given": "a/b.csv"},
    }
    text = text_of(full(sources=sources))
    assert "/home/me" not in text
    assert "`ours` (a local folder)" in text
    assert "base_model" not in text


def test_the_hash_of_a_data_file_is_told_and_the_command_asks_for_it() -> None:
    data = {"kind": "file", "given": "/data/train.csv", "files": {"train": "ab" * 32}}
    text = text_of(full(sources={**full().sources, "data": data}))
    assert "ab" * 32 in text
    assert "--recipe recipe.yaml data.source=FILE output_dir=again" in text
    assert header_of(full(sources={**full().sources, "data": data})).get("datasets") is None


OWN = """---
license: mit
language: [de, en]
tags: [soup]
library_name: keras
---

# Our model

Made with <b>love</b>.
"""


def test_the_users_own_text_comes_first_and_is_kept_letter_for_letter() -> None:
    text = text_of(full(own_text=OWN))
    assert "---\n\n# Our model\n\nMade with <b>love</b>.\n\nIt gives a text one of 3 labels." in text
    assert headings(text)[0] == "Our model"


def test_the_users_own_fields_go_before_ours_but_not_before_what_was_measured() -> None:
    header = header_of(full(own_text=OWN))
    assert header["license"] == "mit"
    assert header["language"] == ["de", "en"]
    assert header["tags"] == ["nlp-finetune", "soup"]
    assert header["library_name"] == "transformers"
    assert header["model-index"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"---\nlicense: [mit\n---\n", "its YAML header can't be read"),
        (b"---\n- mit\n---\n", "its YAML header holds no fields"),
        (b"\xff\xfe\x00", "it is no UTF-8 text"),
        (None, "No such file"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused_by_name(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "own.md"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        cards.skeleton(str(file))
    assert str(refused.value).startswith("hub.card")


def test_a_card_knows_whether_it_was_edited() -> None:
    text = text_of(full())
    assert not cards.is_edited(text)
    assert cards.is_edited(text.replace("0.8750", "0.9999"))
    assert cards.is_edited(text + "\nMore.\n")
    assert cards.is_edited("# Mine\n")


def test_an_adapter_is_one_for_peft() -> None:
    facts = full(is_adapter=True)
    header = header_of(facts)
    assert header["library_name"] == "peft"
    assert header["base_model_relation"] == "adapter"
    assert "AutoPeftModelForSequenceClassification.from_pretrained(" in text_of(facts)


def test_code_of_others_is_shown_where_it_runs() -> None:
    model = {"checkpoint": "them/strange", "trust_remote_code": True}
    facts = full(recipe={**full().recipe, "model": model})
    assert header_of(facts)["tags"] == ["nlp-finetune", "custom_code"]
    assert "trust_remote_code" in text_of(facts)


def test_many_classes_are_folded() -> None:
    names = [f"label{i}" for i in range(77)]
    text = text_of(with_labels(names, names))
    assert "<summary>77 classes</summary>" in text
    assert "| label76 |" in text


def test_seeds_that_were_compared_are_told_with_their_spread() -> None:
    accuracy = {"mean": 0.87, "std": 0.02, "min": 0.85, "max": 0.89, "values": [0.87, 0.89, 0.85]}
    metrics = {**full().metrics, "seeds": {"seeds": [1, 2, 3], "test": {"accuracy": accuracy}, "best": 2}}
    text = text_of(full(metrics=metrics))
    assert "3 seeds (1, 2, 3): test accuracy 0.8500 to 0.8900, mean 0.8700, deviation 0.0200" in text
    assert "The model is that of seed 2, the best on validation" in text


def test_markdown_is_not_escaped_twice() -> None:
    assert escape(escape("a|b")) == escape("a|b")
    assert code("a/b.csv") == Markdown("`a/b.csv`")
    assert "`" not in code("a`b").replace("\\`", "")
    assert fenced("```\nx", "python").startswith("````python\n")


def test_energy_is_rated_power_times_time() -> None:
    assert estimate(3600, devices=[], threads=2, processes=2).watt_hours == pytest.approx(4 * 8.0)
    gpu = estimate(1800, devices=["NVIDIA H100 80GB HBM3"] * 2, threads=8, processes=1)
    assert gpu.watt_hours == pytest.approx(350)
    assert "1 GPU at 700 W" in gpu.assumption
