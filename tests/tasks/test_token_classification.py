"""Token classification: the task's own decisions, and the whole path through the command line."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from datasets import Dataset

from nlp_finetune.errors import InputError
from nlp_finetune.tasks.base import find, options_of
from tests.command_line import run

TINY = (
    "--recipe",
    "token_cls",
    "--demo",
    "model.checkpoint=scratch:bert",
    "model.tokenizer=train",
    "model.config={hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64,"
    " vocab_size: 600, max_position_embeddings: 64}",
    "model.dropout=0.0",
    "task.max_length=24",
    "optim.learning_rate=1e-4",
    "train.batch_size=8",
    "train.threads=1",
    "train.log_every=1",
    "train.max_steps=4",
)
WORDS = ["Ada", "Byron", "saw", "Rome"]


def rows(*tags: list[str], words: list[list[str]] | None = None) -> Dataset:
    size = len(tags)
    return Dataset.from_dict({"tokens": words or [WORDS] * size, "tags": list(tags), "row": list(range(1, size + 1))})


def prepared(
    train: Dataset, *, options: dict | None = None, say: Callable[[str], None] = lambda _: None, **splits: Dataset
):
    task = find("token_classification")(options_of("token_classification")(**(options or {})))
    return task, task.prepare({"train": train, **splits}, say)


def test_types_come_from_all_splits_and_the_scheme_is_said() -> None:
    said: list[str] = []
    task, found = prepared(
        rows(["I-PER", "I-PER", "O", "O"], ["I-PER", "B-PER", "O", "O"]),
        validation=rows(["O", "O", "O", "I-LOC"]),
        say=said.append,
    )
    assert task.types == ["LOC", "PER"]
    assert found["train"]["tags"][:] == [[3, 4, 0, 0], [3, 3, 0, 0]]
    assert found["validation"]["tags"][:] == [[0, 0, 0, 1]]
    assert said == ["text: tokens (words); label tags: IOB1, 2 types (LOC, PER) -> token_classification in IOB2"]


def test_labels_of_the_model_are_iob2_tags_in_order() -> None:
    task, _ = prepared(rows(["B-PER", "I-PER", "O", "B-LOC"]))
    assert task.config_overrides()["id2label"] == {0: "O", 1: "B-LOC", 2: "I-LOC", 3: "B-PER", 4: "I-PER"}


def test_rows_without_words_are_left_out_and_counted() -> None:
    said: list[str] = []
    tags: list[list[str]] = [["B-PER", "O", "O", "O"], []]
    _, found = prepared(rows(*tags, words=[WORDS, []]), say=said.append)
    assert found["train"]["row"][:] == [1]
    assert "train: 1 rows without words are left out" in said


def test_a_test_split_without_tags_is_left_out() -> None:
    train = rows(["B-PER", "O", "O", "O"])
    assert set(prepared(train, test=train.remove_columns("tags"))[1]) == {"train"}


def test_data_without_an_entity_teach_nothing() -> None:
    with pytest.raises(InputError, match="every tag is O"):
        prepared(rows(["O"] * 4))


def test_facts_restore_types_columns_and_unit() -> None:
    task, _ = prepared(rows(["B-PER", "O"], words=[["北", "京"]]))
    other = find("token_classification")(options_of("token_classification")())
    other.restore(json.loads(json.dumps(task.facts())))
    assert other.facts() == task.facts()
    assert (other.types, other.split) == (["PER"], "characters")


def test_a_model_of_word_lists_takes_texts_and_spans() -> None:
    task, _ = prepared(rows(["B-PER", "I-PER", "O", "O"]))
    new = Dataset.from_dict({"text": ["Rome, Ada."], "spans": [[{"start": 6, "end": 9, "label": "PER"}]], "row": [1]})
    (row,) = task.inputs(new, labelled=True)
    assert row["tags"] == [0, 0, 1, 0]
    assert not row["listed"]


def test_a_type_that_the_model_does_not_know_is_refused() -> None:
    task, _ = prepared(rows(["B-PER", "I-PER", "O", "O"]))
    with pytest.raises(InputError, match="row 1 has an entity of type 'LOC'; the model knows PER"):
        task.inputs(rows(["O", "O", "O", "B-LOC"]), labelled=True)


def test_a_row_s_label_is_the_types_it_holds() -> None:
    task, found = prepared(rows(["B-PER", "B-PER", "O", "B-LOC"], ["O"] * 4))
    assert [task.row_label(row) for row in found["train"]] == ["LOC + PER", ""]


def test_the_dictionary_is_the_simple_rival() -> None:
    train = rows(["B-PER", "I-PER", "O", "O"])
    task, found = prepared(train, validation=train)
    assert task.baselines(found)["validation"]["dictionary"]["f1"] == 1.0


BAD: dict[str, tuple[str, str, list[str], str]] = {
    # name: (file, its content, arguments, what the message must say)
    "I- without B- under IOB2": ("d.bio", "a B-X\nb I-X\n\nc O\nd I-X\n", [], r"row 2, word 2 \('d'\): the tag I-X"),
    "mixed schemes": ("d.bio", "a B-X\nb E-X\nc I-X\nd M-X\n", [], "mix several schemes"),
    "a ragged column file": ("d.conll", "a B-X\nb\n", [], r"d\.conll, line 2: expected 2 columns"),
    "a span out of range": (
        "d.jsonl",
        '{"text": "Ada", "spans": [{"start": 0, "end": 9, "label": "PER"}]}\n',
        [],
        "row 1: the span 0 to 9",
    ),
    "overlapping spans": (
        "d.jsonl",
        '{"text": "Ada B", "spans": [{"start": 0, "end": 5, "label": "P"}, {"start": 4, "end": 5, "label": "P"}]}\n',
        [],
        "row 1.*overlap",
    ),
    "a span inside a word": (
        "d.jsonl",
        '{"text": "Ada", "spans": [{"start": 0, "end": 2, "label": "P"}]}\n',
        [],
        "row 1.*ends inside the word 'Ada'",
    ),
    "fewer tags than words": ("d.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}\n', [], "row 1: 2 words, but 1 tags"),
    "numbers without names": ("d.jsonl", '{"tokens": ["a"], "tags": [1]}\n', [], "task.tag_names"),
    "no tags at all": ("d.txt", "one text a line\nand another\n", [], "No column of tags or spans"),
    "a stride beyond a third": ("d.bio", "a B-X\n", ["task.stride=20"], "task.stride.*more than a third"),
    "an unknown metric": ("d.bio", "a B-X\n\nb O\n", ["train.metric=f1_Y"], "did you mean"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_message(name: str, tmp_path: Path) -> None:
    file, content, arguments, message = BAD[name]
    (tmp_path / file).write_text(content, encoding="utf-8")
    done = run(*TINY, f"data.source={file}", "output_dir=run", *arguments, cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the demo data, most rows of which have several windows."""
    folder = tmp_path_factory.mktemp("token_classification")
    done = run(*TINY, "train.engine=trainer", "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    return folder / "run"


def history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_both_engines_give_the_same_losses_and_scores(finished: Path) -> None:
    done = run(*TINY, "train.engine=accelerate", "output_dir=other", cwd=finished.parent)
    assert done.code == 0, done.stderr
    assert history(finished.parent / "other") == history(finished)


def test_metrics_have_an_interval_scores_by_type_and_a_rival(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics["test"]) >= {"f1", "f1_ci95", "precision", "recall", "accuracy", "f1_PER", "recall_DATE"}
    assert set(metrics["baselines"]) == {"validation", "test"}


def test_evaluate_gives_the_scores_of_the_run(finished: Path) -> None:
    done = run("evaluate", finished, "--json", cwd=finished.parent)
    assert done.code == 0, done.stderr
    expected = json.loads((finished / "metrics.json").read_text())["test"]
    assert json.loads(done.stdout)["metrics"]["f1"] == pytest.approx(expected["f1"])


def test_evaluate_takes_a_column_file_of_another_scheme(finished: Path) -> None:
    (finished.parent / "new.bioes").write_text("Ada B-PER\nByron E-PER\nsaw O\nRome S-LOC\n")
    done = run("evaluate", finished, "--data", "new.bioes", "--json", cwd=finished.parent)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["rows"] == 1


def test_predict_marks_spans_of_the_text(finished: Path) -> None:
    text = "Ada Byron, who lived in Rome, saw " * 20
    done = run("predict", finished, "--text", text, cwd=finished.parent)
    assert done.code == 0, done.stderr
    spans = json.loads(done.stdout)["spans"]
    assert all(text[span["start"] : span["end"]] == span["text"] and 0 < span["score"] <= 1 for span in spans)
    assert all(before["end"] <= after["start"] for before, after in pairwise(spans))
    assert len({span["start"] for span in spans if span["start"] > len(text) / 2}) > 1


def test_predict_takes_word_lists_and_writes_json_into_a_table(finished: Path) -> None:
    (finished.parent / "new.jsonl").write_text('{"tokens": ["Ada", "saw"]}\n{"tokens": []}\n{"tokens": ["\\u200b"]}\n')
    done = run("predict", finished, "--input", "new.jsonl", "--output", "out.csv", cwd=finished.parent)
    assert done.code == 0, done.stderr
    assert (finished.parent / "out.csv").read_text().splitlines()[0] == "row,tokens,spans"
    assert len((finished.parent / "out.csv").read_text().splitlines()) == 4


FOREIGN = """
import json, sys, torch
if torch.version.cuda is None:
    declared = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        declared.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from transformers import pipeline
tagger = pipeline("token-classification", sys.argv[1], aggregation_strategy="simple")
found = tagger("Ada Byron saw Rome on Monday, and Grace went to Oslo.")
assert not any(name.startswith("nlp_finetune") for name in sys.modules)
print(json.dumps({"groups": sorted({f["entity_group"] for f in found}), "labels": tagger.model.config.id2label}))
"""


@pytest.mark.slow
def test_the_model_loads_in_a_pipeline_without_this_package(finished: Path) -> None:
    command = [sys.executable, "-c", FOREIGN, str(finished / "model")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=finished.parent, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["labels"]["1"] == "B-DATE"
    assert set(answer["groups"]) <= {"DATE", "LOC", "ORG", "PER", "O"}


@pytest.mark.slow
def test_characters_are_tagged_one_by_one(tmp_path: Path) -> None:
    content = "北 B-LOC\n京 E-LOC\n1 O\n9 O\n\n王 S-PER\n说 O\n" * 20
    (tmp_path / "d.bmes").write_text(content, encoding="utf-8")
    done = run(*TINY, "data.source=d.bmes", "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "tokens (characters)" in done.stderr
    answer = run("predict", "run", "--text", "王说 2019", cwd=tmp_path)
    assert answer.code == 0, answer.stderr
    assert all(0 <= span["start"] < span["end"] <= 7 for span in json.loads(answer.stdout)["spans"])


@pytest.mark.slow
def test_conll_2003_is_read_as_it_is(shared_data: Path) -> None:
    from nlp_finetune.data.sources import read_file

    data, _ = read_file(str(shared_data / "conll2003" / "eng.train"))
    said: list[str] = []
    task, found = prepared(data, say=said.append)
    assert (len(found["train"]), task.types) == (14_041, ["LOC", "MISC", "ORG", "PER"])
    assert "IOB1 (2 tags" in said[0]
    begun = sum(tag % 2 for tags in found["train"]["tags"][:] for tag in tags)
    assert begun == 23_499  # the entities that the shared task's paper counts
