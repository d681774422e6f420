"""Multiple choice: the task's own decisions, and the whole path through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from nlp_finetune.errors import InputError
from nlp_finetune.tasks.base import find, options_of
from tests.command_line import run
from tests.models.conftest import SIZES, load

TINY = (
    "--recipe",
    "multiple_choice",
    "--demo",
    "model.checkpoint=scratch:bert",
    "model.tokenizer=train",
    "model.config={hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64,"
    " vocab_size: 600, max_position_embeddings: 64}",
    "model.dropout=0.0",
    "train.threads=1",
    "train.log_every=1",
    "train.max_steps=4",
)
QUESTION = ("--text", "What do you cut bread with?", "--text", "a knife", "--text", "a pillow")


def prepared(*rows: tuple[str, list[str], int], **options):
    task = find("multiple_choice")(options_of("multiple_choice")(**options))
    table = {"question": [r[0] for r in rows], "choices": [r[1] for r in rows], "label": [r[2] for r in rows]}
    data = Dataset.from_dict({**table, "row": list(range(1, len(rows) + 1))})
    return task, task.prepare({"train": data}, lambda line: None)["train"]


ROWS = (("Which?", ["a", "bb", "c"], 1), ("Why?", ["x", "y"], 0), ("Who?", ["p", "q", "r", "s"], 3))
SCORES = [np.array([0.1, 0.7, 0.2]), np.array([0.4, 0.6]), np.array([0.1, 0.1, 0.1, 0.7])]


def test_accuracy_counts_rows_whatever_their_number_of_options() -> None:
    task, rows = prepared(*ROWS)
    assert task.metrics(SCORES, rows) == {"accuracy": pytest.approx(2 / 3)}
    assert task.resampled_metric("accuracy", SCORES, rows)(np.array([1, 1])) == 0.0


def test_a_score_that_is_no_number_is_not_hidden() -> None:
    task, rows = prepared(*ROWS)
    assert np.isnan(task.metrics([SCORES[0], np.array([np.nan, 0.5]), SCORES[2]], rows)["accuracy"])


def test_a_prediction_names_the_option_as_the_labels_do_and_scores_each() -> None:
    task, rows = prepared(*ROWS)
    (first, second, _) = task.decode(SCORES, rows)
    assert (first["label"], first["answer"], first["score"]) == (1, "bb", 0.7)
    assert [(o["option"], o["score"]) for o in second["options"]] == [("x", 0.4), ("y", 0.6)]


def test_rivals_are_measured_beside_chance() -> None:
    task, train = prepared(*ROWS)
    found = task.baselines({"train": train, "validation": train})["validation"]
    assert set(found) == {"commonest_position", "longest_option", "tfidf_overlap", "chance"}
    assert found["chance"]["accuracy"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 4) / 3)
    assert found["longest_option"]["accuracy"] == pytest.approx(2 / 3)  # ties go to the first


def test_facts_restore_columns_and_how_labels_are_given() -> None:
    task, _ = prepared(*ROWS)
    other = find("multiple_choice")(options_of("multiple_choice")())
    other.restore(json.loads(json.dumps(task.facts())))
    assert other.facts() == task.facts()


def test_check_finds_repeated_options_and_other_answers_to_the_same_question() -> None:
    same = ("Which?", ["bb", "c", "a"], 2)
    task, rows = prepared(*ROWS, same, ("When?", ["now", "Now "], 0))
    assert [f.code for f in task.findings({"train": rows})] == ["repeated_options", "conflicting_labels"]


def test_a_row_is_written_as_a_question_and_its_options() -> None:
    task, rows = prepared(*ROWS)
    texts = task.row_inputs(rows[2])
    assert texts == ["Who?", "p", "q", "r", "s"]
    assert task.from_texts(texts) == {"question": "Who?", "choices": ["p", "q", "r", "s"]}
    with pytest.raises(InputError, match="takes question, then 2 or more options, not 2 texts"):
        task.from_texts(texts[:2])


FAMILIES = [name for name in SIZES if name not in ("gpt2", "bart", "t5")]


@pytest.mark.parametrize("family", FAMILIES)
def test_options_in_one_row_are_scored_as_in_rows_of_their_own(family: str) -> None:
    model = load(f"scratch:{family}", names=(), auto_class="AutoModelForMultipleChoice", edits=SIZES[family]).eval()
    tokens = torch.randint(5, 60, (2, 3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[1, 2, 4:] = 0
    with torch.no_grad():
        by_row = model(input_ids=tokens, attention_mask=mask).logits
        flat = model(input_ids=tokens.view(1, 6, 7), attention_mask=mask.view(1, 6, 7)).logits
    assert torch.allclose(flat.view(2, 3), by_row, atol=1e-6)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choice")
    done = run("train", *TINY, "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    assert "question: question; options: choices, 2 to 5 a row; label: given by from 0" in done.stderr
    return folder / "run"


def logged(folder: Path) -> list[tuple[float, float]]:
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


def test_engines_and_cuts_into_micro_batches_take_the_same_steps(finished: Path, tmp_path: Path) -> None:
    done = run("train", *TINY, "train.engine=accelerate", "train.micro_batch_size=3", "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert len(logged(finished)) == 4
    assert logged(tmp_path / "run") == pytest.approx(np.array(logged(finished)), rel=1e-4)


def test_predict_takes_a_question_and_any_number_of_options(finished: Path) -> None:
    for more in ((), ("--text", "a hat", "--text", "a sock")):
        done = run("predict", finished, *QUESTION, *more, cwd=finished)
        assert done.code == 0, done.stderr
        answer = json.loads(done.stdout)
        assert len(answer["options"]) == 2 + len(more) // 2
        assert sum(option["score"] for option in answer["options"]) == pytest.approx(1, abs=1e-6)
        assert answer["answer"] == answer["options"][answer["label"]]["option"]


def test_predict_leaves_out_rows_without_a_choice_and_says_so(finished: Path, tmp_path: Path) -> None:
    rows = [("Which?", ["a", "b"]), ("Why?", ["x"]), ("", ["x", "y"]), ("Who?", ["p", "q", "r"])]
    lines = [json.dumps({"question": question, "choices": options}) for question, options in rows]
    (tmp_path / "new.jsonl").write_text("\n".join(lines) + "\n")
    done = run("predict", finished, "--input", "new.jsonl", "--output", "out.csv", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "row 2 is left out: column 'choices': one option" in done.stderr
    assert "row 3 is left out: column 'question' is empty" in done.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_evaluate_gives_the_scores_of_the_run(finished: Path) -> None:
    done = run("evaluate", finished, "--json", cwd=finished)
    saved = json.loads((finished / "metrics.json").read_text())["test"]
    assert json.loads(done.stdout)["metrics"] == {name: value for name, value in saved.items() if name != "loss"}


@pytest.mark.slow
def test_the_model_gives_the_same_scores_in_plain_transformers(finished: Path) -> None:
    code = (
        "import sys\n"
        "try:\n    import torchvision\n"
        "except Exception:\n    sys.modules['torchvision'] = None\n"
        "from transformers import AutoModelForMultipleChoice, AutoTokenizer\n"
        f"folder, question, options = {str(finished / 'model')!r}, {QUESTION[1]!r}, {list(QUESTION[3::2])!r}\n"
        "model, report = AutoModelForMultipleChoice.from_pretrained(folder, output_loading_info=True)\n"
        "assert not report['missing_keys'] and not report['unexpected_keys'], report\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "inputs = tokenizer([question] * 2, options, return_tensors='pt', padding=True)\n"
        "logits = model(**{name: tensor.unsqueeze(0) for name, tensor in inputs.items()}).logits\n"
        "assert not any(name.startswith('nlp_finetune') for name in sys.modules)\n"
        "print(logits.softmax(-1)[0].tolist())\n"
    )
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert plain.returncode == 0, plain.stderr
    ours = json.loads(run("predict", finished, *QUESTION, cwd=finished).stdout)["options"]
    theirs = json.loads(plain.stdout.strip().splitlines()[-1])
    assert [option["score"] for option in ours] == pytest.approx(theirs, abs=1e-6)


def test_an_adapter_trains_with_the_head_and_is_merged(tmp_path: Path) -> None:
    done = run("train", *TINY, "lora.rank=4", "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "trained whole: classifier" in done.stderr
    base, merged = (load_file(tmp_path / "run" / part / "model.safetensors") for part in ("base", "model"))
    changed = {name for name in merged if not (merged[name] == base[name]).all()}
    assert changed <= {"classifier.weight", "classifier.bias", *(name for name in changed if ".encoder.layer." in name)}


BAD = {
    "label out of range": ('{"question": "Who?", "choices": ["a", "b"], "label": 7}', "row 1: the label 7"),
    "one option": ('{"question": "Who?", "choices": ["a"], "label": 0}', "row 1: column 'choices': one option"),
    "options that are a number": ('{"question": "Who?", "choices": 3, "label": 0}', "not a list of texts"),
    "nested without texts": ('{"question": "Who?", "choices": {"label": ["A"]}, "label": "A"}', "not a list of texts"),
    "no label": ('{"question": "Who?", "choices": ["a", "b"]}', "No label column found by name"),
    "empty label": ('{"question": "Who?", "choices": ["a", "b"], "label": ""}', "row 1 has no label"),
    "no options": ('{"question": "Who?", "label": 0}', "No options found by name"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_end_with_one_message_and_write_nothing(name: str, tmp_path: Path) -> None:
    line, message = BAD[name]
    (tmp_path / "bad.jsonl").write_text(line + "\n")
    done = run("train", *TINY, "data.source=bad.jsonl", "output_dir=run", cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


REFUSED = {
    "a family without the head": (
        ["model.checkpoint=scratch:gpt2", "model.config={n_embd: 32}", "data.source=someone/not-reachable"],
        "gpt2 has no AutoModelForMultipleChoice",
    ),
    "a missing column": (["task.options=[choices, more]"], "task.options: no column 'more'"),
    "too long": (["task.max_length=8", "task.on_long=error"], "Raise task.max_length"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    arguments, message = REFUSED[name]
    done = run("train", *TINY, *arguments, "output_dir=run", cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
