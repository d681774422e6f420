"""Question answering: the task's own decisions, and the whole path through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from nlp_finetune.errors import InputError
from nlp_finetune.tasks.base import find, options_of
from tests.command_line import run

TINY = (
    "--recipe",
    "qa",
    "--demo",
    "model.checkpoint=scratch:bert",
    "model.tokenizer=train",
    "model.config={hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64,"
    " vocab_size: 600, max_position_embeddings: 128}",
    "model.dropout=0.0",
    "task.max_length=96",
    "task.stride=24",
    "train.threads=1",
    "train.log_every=1",
    "train.max_steps=4",
)
CONTEXT = "The ferry leaves at noon. On Sunday the ferry rests."
NOON = {"text": ["at noon"], "answer_start": [17]}
NOTHING: dict[str, list] = {"text": [], "answer_start": []}


def rows(*answers: dict, contexts: list[str] | None = None, questions: list[str] | None = None) -> Dataset:
    size = len(answers)
    columns = {"question": questions or ["When?"] * size, "context": contexts or [CONTEXT] * size}
    return Dataset.from_dict({**columns, "answers": list(answers), "row": list(range(1, size + 1))})


def prepared(train: Dataset, **splits: Dataset):
    task = find("question_answering")(options_of("question_answering")())
    return task, task.prepare({"train": train, **splits}, lambda _: None)


def spans(*triples: tuple[float, int, int]) -> np.ndarray:
    return np.array(triples, dtype=float).reshape(-1, 3)


def test_rows_without_a_usable_answer_are_left_out_of_training_alone() -> None:
    lost = {"text": ["at midnight"], "answer_start": [3]}
    task, found = prepared(rows(NOON, lost, NOTHING), validation=rows(lost, NOTHING))
    assert found["train"]["row"][:] == [1, 3]
    assert found["validation"]["row"][:] == [1, 2]
    assert [finding.code for finding in task.findings(found)].count("answers_not_found") == 2


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (rows({"text": ["at midnight"], "answer_start": [3]}), "in none of the 1 rows an answer stands in its context"),
        (rows(NOON, questions=[" "]), "in none of the 1 rows"),
        (rows({"text": [""], "answer_start": [0]}), "none of the 1 questions has an answer"),
    ],
)
def test_data_that_teach_no_answer_are_refused(train: Dataset, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepared(train)


def test_a_test_split_without_answers_is_left_out() -> None:
    unlabelled = rows(NOON).remove_columns("answers")
    assert set(prepared(rows(NOON, NOON), test=unlabelled)[1]) == {"train"}


def test_facts_restore_columns_limit_and_threshold() -> None:
    task, _ = prepared(rows(NOON, NOTHING))
    other = find("question_answering")(options_of("question_answering")())
    other.restore(json.loads(json.dumps(task.facts())))
    assert other.facts() == task.facts()
    assert (other.longest, other.threshold) == (len("at noon"), 0.0)


def test_without_unanswerable_questions_there_is_always_an_answer() -> None:
    task, found = prepared(rows(NOON, NOON))
    (answer, silent) = task.decode([spans((-9, 17, 24)), spans()], found["train"])
    assert (answer["answer"], answer["start"], answer["end"]) == ("at noon", 17, 24)
    assert silent == {"answer": "", "score": 1.0, "start": None, "end": None, "no_answer_score": 1.0}


def test_below_the_threshold_nothing_is_answered() -> None:
    task, found = prepared(rows(NOON, NOTHING))
    task.threshold = 2.0
    answer, nothing = task.decode([spans((2.5, 17, 24)), spans((1.5, 17, 24))], found["train"])
    assert (answer["answer"], nothing["answer"]) == ("at noon", "")
    assert nothing["score"] == nothing["no_answer_score"] == pytest.approx(1 / (1 + np.exp(1.5)))


def test_white_space_at_the_ends_of_a_span_is_no_part_of_the_answer() -> None:
    task, found = prepared(rows(NOON))
    (answer,) = task.decode([spans((5, 16, 24))], found["train"])
    assert (answer["answer"], answer["start"], answer["end"]) == ("at noon", 17, 24)


def test_the_threshold_is_tuned_on_validation_rows_of_both_kinds() -> None:
    task, found = prepared(rows(NOON, NOTHING))
    predictions = [spans((8, 17, 24)), spans((6, 0, 9))]
    assert task.metrics(predictions, found["train"])["f1"] == 0.5
    task.tune(predictions, found["train"])
    assert task.threshold == pytest.approx(7.0)
    assert task.metrics(predictions, found["train"])["f1"] == 1.0


def test_the_threshold_stays_where_validation_rows_are_of_one_kind() -> None:
    task, found = prepared(rows(NOON, NOON))
    task.tune([spans((8, 17, 24)), spans((6, 0, 9))], found["train"])
    assert task.threshold is None


def test_metric_names_are_those_that_are_measured() -> None:
    task, found = prepared(rows(NOON, NOTHING))
    assert set(task.metric_names()) == set(task.metrics([spans((8, 17, 24))] * 2, found["train"]))
    task, found = prepared(rows(NOON, NOON))
    assert set(task.metric_names()) == set(task.metrics([spans((8, 17, 24))] * 2, found["train"]))


def test_the_stride_is_at_most_a_third_of_a_window(tmp_path: Path) -> None:
    done = run("show", "--recipe", "qa", "task.stride=200", cwd=tmp_path)
    assert done.code == 2
    assert "task.stride" in done.stderr
    assert "200 is more than a third of max_length, which is 384" in done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qa")
    done = run("train", *TINY, "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    return folder / "run"


def logged(folder: Path) -> list[tuple[float, float]]:
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


def test_engines_and_cuts_into_micro_batches_take_the_same_steps(finished: Path, tmp_path: Path) -> None:
    done = run("train", *TINY, "train.engine=accelerate", "train.micro_batch_size=4", "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert len(logged(finished)) == 4
    assert logged(tmp_path / "run") == pytest.approx(np.array(logged(finished)), rel=1e-4)


def test_both_kinds_of_questions_are_in_the_metrics(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    kinds = {f"{name}_{kind}" for name in ("f1", "exact_match") for kind in ("answerable", "unanswerable")}
    assert kinds <= set(metrics["test"])
    assert metrics["validation"]["loss"] > 0
    assert set(metrics["baselines"]["test"]) == {"closest_sentence", "no_answer"}


def test_predict_takes_a_question_and_a_context(finished: Path) -> None:
    done = run("predict", finished, "--text", "When does it leave?", "--text", CONTEXT, cwd=finished)
    assert done.code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"answer", "score", "start", "end", "no_answer_score"}
    assert answer["answer"] == ("" if answer["start"] is None else CONTEXT[answer["start"] : answer["end"]])


def test_predict_reads_nested_files_and_names_rows_it_leaves_out(finished: Path, tmp_path: Path) -> None:
    questions = [{"id": str(i), "question": text} for i, text in enumerate(["When?", " ", "Where?"])]
    document = {"data": [{"paragraphs": [{"context": CONTEXT, "qas": questions}]}]}
    (tmp_path / "new.json").write_text(json.dumps(document))
    done = run("predict", finished, "--input", "new.json", "--output", "out.jsonl", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "row 2 is left out" in done.stderr
    assert [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ["0", "2"]


def test_evaluate_gives_the_scores_of_the_run(finished: Path) -> None:
    done = run("evaluate", finished, "--json", cwd=finished)
    scores = json.loads(done.stdout)["metrics"]
    saved = json.loads((finished / "metrics.json").read_text())["test"]
    assert scores == {name: value for name, value in saved.items() if name != "loss"}


@pytest.mark.slow
def test_the_model_loads_in_plain_transformers(finished: Path) -> None:
    code = (
        "import sys\n"
        "try:\n    import torchvision\n"
        "except Exception:\n    sys.modules['torchvision'] = None\n"
        "from transformers import AutoModelForQuestionAnswering, AutoTokenizer\n"
        f"folder = {str(finished / 'model')!r}\n"
        "model, report = AutoModelForQuestionAnswering.from_pretrained(folder, output_loading_info=True)\n"
        "inputs = AutoTokenizer.from_pretrained(folder)('When?', 'At noon.', return_tensors='pt')\n"
        "assert not report['missing_keys'] and not report['unexpected_keys'], report\n"
        "assert model(**inputs).start_logits.shape == inputs['input_ids'].shape\n"
        "assert not any(name.startswith('nlp_finetune') for name in sys.modules)\n"
        "print('same')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.stdout.strip() == "same", done.stderr


BAD = {
    "missing context": ('{"question": "Who?", "answers": {"text": ["a"], "answer_start": [0]}}', "No context column"),
    "null context": (
        '{"question": "Who?", "context": null, "answers": {"text": ["a"], "answer_start": [0]}}',
        "column 'context' has no text in 1 of 1 rows",
    ),
    "answers are text": ('{"question": "Who?", "context": "a b", "answers": "a"}', "row 1: column 'answers' holds 'a'"),
    "answer_start out of range": (
        '{"question": "Who?", "context": "a b", "answers": {"text": ["c"], "answer_start": [99]}}',
        "in none of the 1 rows an answer stands in its context",
    ),
    "empty question": (
        '{"question": "", "context": "a b", "answers": {"text": ["a"], "answer_start": [0]}}',
        "in none of the 1 rows",
    ),
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
