"""Text embedding: the task's own decisions, and the whole path through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from nlp_finetune.tasks.base import find, options_of
from tests.command_line import run

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--recipe",
    "embedding",
    "--demo",
    "model.checkpoint=scratch:bert",
    "model.tokenizer=train",
    "model.config={hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64,"
    " vocab_size: 600, max_position_embeddings: 64}",
    "model.dropout=0.0",
    "task.max_length=32",
    "train.threads=1",
    "train.log_every=1",
    "train.max_steps=4",
    "train.batch_size=12",
)
SENTENCES = ("A man is chopping wood behind a cabin.", "The soup was too spicy.")
POSITIVE = [(f"question number {i} about thing {i % 7}", f"answer {i} that names thing {i % 7}") for i in range(40)]


def positive(folder: Path, *, negative: bool = False) -> str:
    lines = [
        {"anchor": a, "positive": b, **({"negative": f"nothing of the kind {i}"} if negative else {})}
        for i, (a, b) in enumerate(POSITIVE)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"data.source={folder / 'pairs.jsonl'}"


def prepared(**columns: list):
    task = find("text_embedding")(options_of("text_embedding")())
    size = len(next(iter(columns.values())))
    data = Dataset.from_dict({**columns, "row": list(range(1, size + 1))})
    return task, task.prepare({"train": data}, lambda line: None)["train"]


def test_scored_pairs_are_measured_by_correlation_and_others_by_recall() -> None:
    task, rows = prepared(sentence1=["a", "b", "c"], sentence2=["d", "e", "f"], score=[0.0, 2.0, 5.0])
    cosines = [np.array([0.1]), np.array([0.3]), np.array([0.2])]
    assert task.metrics(cosines, rows)["spearman"] == pytest.approx(0.5)
    assert set(task.metrics(cosines, rows)) == set(task.metric_names())
    assert task.couples_rows is None
    task, rows = prepared(anchor=["a", "b"], positive=["c", "d"])
    vectors = [np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([[0.0, 1.0], [0.8, 0.6]])]
    assert task.metrics(vectors, rows)["recall_at_1"] == 0.0
    assert task.metrics(vectors, rows)["recall_at_5"] == 1.0
    assert set(task.metrics(vectors, rows)) == set(task.metric_names())
    assert "in-batch negatives" in task.couples_rows


def test_facts_restore_columns_and_range() -> None:
    task, _ = prepared(sentence1=["a", "b"], sentence2=["d", "e"], score=[0.0, 5.0])
    other = find("text_embedding")(options_of("text_embedding")())
    other.restore(json.loads(json.dumps(task.facts())))
    assert other.facts() == task.facts()


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    done = run("train", *TINY, "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    assert "0 means cosine 0, 5 cosine 1" in done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def matched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on positive pairs, whose optimizer steps are cut into two micro batches."""
    folder = tmp_path_factory.mktemp("matched")
    done = run("train", *TINY, positive(folder), "train.micro_batch_size=6", "output_dir=run", cwd=folder)
    assert done.code == 0, done.stderr
    assert "in-batch negatives" in done.stderr
    return folder / "run"


def logged(folder: Path) -> list[tuple[float, float]]:
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


def test_scored_pairs_train_alike_in_both_engines_and_any_cut(scored: Path, tmp_path: Path) -> None:
    done = run("train", *TINY, "train.engine=accelerate", "train.micro_batch_size=5", "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert len(logged(scored)) == 4
    assert logged(tmp_path / "run") == pytest.approx(np.array(logged(scored)), rel=1e-4)


def test_positive_pairs_train_alike_in_both_engines(matched: Path, tmp_path: Path) -> None:
    more = (positive(tmp_path), "train.engine=accelerate", "train.micro_batch_size=6", "output_dir=run")
    done = run("train", *TINY, *more, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert logged(tmp_path / "run") == pytest.approx(np.array(logged(matched)), rel=1e-4)


def test_negatives_come_from_the_micro_batch(matched: Path, tmp_path: Path) -> None:
    done = run("train", *TINY, positive(tmp_path), "output_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    # An untrained model scores all candidates about alike: log of their number.
    whole, halves = logged(tmp_path / "run")[0][0], logged(matched)[0][0]
    assert whole > halves + 0.3


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_two_processes_take_the_steps_of_two_micro_batches(engine: str, matched: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", str(29500 + os.getpid() % 2000), str(ROOT / "run.py"), "train", *TINY]
    command += [
        positive(tmp_path),
        "train.micro_batch_size=6",
        f"train.engine={engine}",
        f"output_dir={tmp_path / 'run'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert logged(tmp_path / "run") == pytest.approx(np.array(logged(matched)), rel=1e-4)


def test_predict_gives_a_cosine_for_two_texts_and_a_vector_for_one(scored: Path, matched: Path) -> None:
    for folder in (scored, matched):
        pair = json.loads(run("predict", folder, "--text", SENTENCES[0], "--text", SENTENCES[1], cwd=folder).stdout)
        assert -1 <= pair["similarity"] <= 1
        one, other = (
            json.loads(run("predict", folder, "--text", text, cwd=folder).stdout)["vector"] for text in SENTENCES
        )
        assert len(one) == 32
        assert np.dot(one, other) == pytest.approx(pair["similarity"], abs=1e-5)


def test_predict_reads_files_of_pairs_and_of_texts(scored: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2\na man,a woman\nsoup,\n")
    done = run("predict", scored, "--input", "pairs.csv", "--output", "out.csv", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "row 2 is left out: column 'sentence2' is empty" in done.stderr
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "row,sentence1,sentence2,similarity"
    (tmp_path / "texts.txt").write_text("a man\na woman\n")
    done = run("predict", scored, "--input", "texts.txt", "--json", cwd=tmp_path)
    assert [len(answer["vector"]) for answer in json.loads(done.stdout)] == [32, 32]


@pytest.mark.parametrize("kind", ["scored", "matched"])
def test_evaluate_gives_the_scores_of_the_run(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    done = run("evaluate", folder, "--json", cwd=folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    saved = metrics.get("test", metrics["validation"])
    assert json.loads(done.stdout)["metrics"] == {name: value for name, value in saved.items() if name != "loss"}


def test_triplets_train_with_an_adapter_and_are_merged(tmp_path: Path) -> None:
    more = (positive(tmp_path, negative=True), "lora.rank=4", "output_dir=run")
    done = run("train", *TINY, *more, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "unlike the first: negative" in done.stderr
    assert "lora rank 4 on 12 layers" in done.stderr
    vector = json.loads(run("predict", "run", "--text", SENTENCES[0], cwd=tmp_path).stdout)["vector"]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_folder_gives_the_same_vectors_in_plain_libraries(pooling: str, scored: Path, tmp_path: Path) -> None:
    folder = scored
    if pooling == "cls":
        folder = tmp_path / "run"
        assert run("train", *TINY, "task.pooling=cls", f"output_dir={folder}", cwd=tmp_path).code == 0
    code = (
        "import json, sys\n"
        "try:\n    import torchvision\n"
        "except Exception:\n    sys.modules['torchvision'] = None\n"
        "from sentence_transformers import SentenceTransformer\n"
        "from transformers import AutoModel\n"
        f"folder, texts = {str(folder / 'model')!r}, {list(SENTENCES)!r}\n"
        "model, report = AutoModel.from_pretrained(folder, output_loading_info=True)\n"
        "assert not report['missing_keys'] and not report['unexpected_keys'], report\n"
        "loaded = SentenceTransformer(folder)\n"
        "assert loaded.max_seq_length == 32, loaded.max_seq_length\n"
        "assert not any(name.startswith('nlp_finetune') for name in sys.modules)\n"
        "print(json.dumps(loaded.encode(texts).tolist()))\n"
    )
    pytest.importorskip("sentence_transformers")
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert plain.returncode == 0, plain.stderr
    theirs = json.loads(plain.stdout.strip().splitlines()[-1])
    ours = [json.loads(run("predict", folder, "--text", text, cwd=folder).stdout)["vector"] for text in SENTENCES]
    assert np.abs(np.array(ours) - np.array(theirs)).max() < 1e-5


BAD = {
    "a score that is a word": (
        '{"sentence1": "x", "sentence2": "y", "score": "high"}',
        "row 1, column 'score' holds 'high'",
    ),
    "one text": ('{"sentence1": "x", "score": 1.0}', "Two columns of texts are needed"),
    "a text that is missing": (
        '{"sentence1": "x", "sentence2": null, "score": 1}\n{"sentence1": "x", "sentence2": "y", "score": 1}',
        "column 'sentence2' has no text",
    ),
    "the same score everywhere": ('{"sentence1": "x", "sentence2": "y", "score": 1.0}', "every score is 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_end_with_one_message_and_write_nothing(name: str, tmp_path: Path) -> None:
    line, message = BAD[name]
    (tmp_path / "bad.jsonl").write_text(f"{line}\n" * 2)
    done = run("train", *TINY, "data.source=bad.jsonl", "output_dir=run", cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


REFUSED = {
    "an encoder and a decoder": (
        ["model.checkpoint=scratch:t5", "model.config={}"],
        "model type t5 is no encoder of texts",
    ),
    "a scale without negatives": (["task.scale=10.0"], "task.scale: pairs with scores have no in-batch negatives"),
    "a loss for other pairs": (["loss.name=cross_entropy"], "use mse or huber"),
    "scores outside the range": (["task.score_range=[0, 1]"], "outside task.score_range"),
    "micro batches of one row": (["train.micro_batch_size=1", "DATA"], "it needs at least 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    arguments, message = REFUSED[name]
    arguments = [positive(tmp_path) if text == "DATA" else text for text in arguments]
    done = run("train", *TINY, *arguments, "output_dir=run", cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_check_says_that_rows_are_coupled(tmp_path: Path) -> None:
    done = run("check", *TINY, positive(tmp_path), "--json", cwd=tmp_path)
    assert "in-batch negatives" in json.loads(done.stdout)["plan"]["plan"]["coupled rows"]
