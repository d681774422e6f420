"""Sequence to sequence: loss, what is written, and the whole path through the command line."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from nlp_finetune import inference
from nlp_finetune.learning.losses import cross_entropy
from nlp_finetune.runtime import Runtime
from nlp_finetune.tasks.base import find, options_of
from tests.command_line import Done, run
from tests.tokenizers import letters

ROOT = Path(__file__).resolve().parents[2]
SIZES = {
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0},
    "bart": {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64, "dropout": 0.0,
    },
}  # fmt: skip
TINY = (
    "--recipe",
    "seq2seq",
    "--demo",
    "task.max_length=48",
    "task.max_target_length=24",
    "train.threads=1",
    "train.max_steps=4",
    "train.eval_every=4",
    "train.batch_size=8",
)
SOURCES = ["abc def", "x", "one two three four", "0123456789", "a dog."]
TARGETS = ["abc", "xx", "1 2 3 4", "9876", "dog"]
TEXT = "Hello, Leo here. The history talk will not be on Saturday."
SETTINGS = f"""
import sys
try:
    import torchvision
except Exception:
    sys.modules["torchvision"] = None
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

def written(model, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    new = model.eval().generate(**tokenizer({TEXT!r}, return_tensors="pt"))
    return tokenizer.decode(new[0], skip_special_tokens=True).strip()

folder = sys.argv[1]
print(repr(written(AutoModelForSeq2SeqLM.from_pretrained(folder + "/model"), folder + "/model")))
"""
ADAPTER = """
from peft import PeftConfig, PeftModel

adapter = folder + "/adapter"
base = PeftConfig.from_pretrained(adapter).base_model_name_or_path
model = AutoModelForSeq2SeqLM.from_pretrained(base, config=AutoConfig.from_pretrained(adapter, subfolder="base_config"))
print(repr(written(PeftModel.from_pretrained(model, adapter), adapter)))
assert not any(name.startswith("nlp_finetune") for name in sys.modules)
"""


def rows(**more: Any) -> Dataset:
    return Dataset.from_dict({"source": SOURCES, "target": TARGETS, "row": [1, 2, 3, 4, 5], **more})


def task(**options: Any) -> Any:
    sizes = {"max_length": 24, "max_target_length": 10}
    made = find("seq2seq")(options_of("seq2seq")(**{**sizes, **options}))
    made.start = 0
    return made, made.prepare({"train": rows()}, lambda line: None)["train"]


def model(family: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=len(letters()), pad_token_id=0, eos_token_id=0, decoder_start_token_id=0,
        **SIZES[family],
    )  # fmt: skip
    made = AutoModelForSeq2SeqLM.from_config(config).eval()
    for parameter in made.parameters():  # far from each other, so that rounding does not decide what is written
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return made


def scorer(of: Any, family: str, batch_size: int = 5) -> inference.Model:
    here = Runtime(0, 1, 0, 1, torch.device("cpu"), 1)
    return inference.Model(of, model(family), letters(), here, batch_size=batch_size)


@pytest.mark.parametrize("family", SIZES)
def test_the_objective_is_the_models_own_loss_over_target_tokens(family: str) -> None:
    made, data = task()
    encoded = inference.encode(made, data, letters())
    batch = made.collator(letters())([encoded[i] for i in range(len(encoded))])
    items = made.count_items(batch)
    assert items == sum(len(target) + 1 for target in TARGETS)
    loss, _ = made.objective(cross_entropy)(model(family), batch, items)
    theirs = model(family)(**made.model_inputs(batch), labels=batch["labels"]).loss
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", SIZES)
def test_what_is_written_depends_neither_on_the_batch_nor_on_whether_the_loss_is_asked_for(
    family: str, beams: int
) -> None:
    made, data = task(num_beams=beams)
    alone = scorer(made, family, batch_size=1).predictions(data)
    assert len({one.text for one in alone}) > 1
    assert scorer(made, family).predictions(data) == alone
    together = scorer(made, family).run(data, objective=made.objective(cross_entropy))
    assert together.predictions == alone
    assert together.loss is not None


def test_no_sequence_is_repeated_where_that_is_forbidden() -> None:
    made, data = task(no_repeat_ngram_size=1)
    for one in scorer(made, "t5").predictions(data):
        assert len(set(one.text.replace(" ", ""))) == len(one.text.replace(" ", ""))


def test_training_takes_the_first_reference_and_scores_take_the_best() -> None:
    made = find("seq2seq")(options_of("seq2seq")())
    train = Dataset.from_dict({"text": ["x"], "summary": ["a"], "row": [1]})
    test = Dataset.from_dict({"text": ["x"], "summary1": ["b c"], "summary2": ["d e"], "row": [1]})
    said: list[str] = []
    found = made.prepare({"train": train, "test": test}, said.append)
    assert "test: 2 references a row (summary1, summary2)" in said
    assert found["test"][0] == {"row": 1, "source": "x", "references": ["b c", "d e"], "target": "b c"}
    from nlp_finetune.models.decoding import Written

    assert made.metrics([Written("d e", 2, True)], found["test"])["rougeL"] == 1.0


def test_a_test_split_without_targets_is_left_out() -> None:
    made = find("seq2seq")(options_of("seq2seq")())
    said: list[str] = []
    splits = {"train": rows(), "test": rows().remove_columns("target")}
    assert list(made.prepare(splits, said.append)) == ["train"]
    assert any(line.startswith("test: no targets") for line in said)


def test_scores_of_chinese_targets_count_characters_and_that_is_said() -> None:
    made = find("seq2seq")(options_of("seq2seq")())
    said: list[str] = []
    made.prepare({"train": rows(target=["会议改到周五"] * 5)}, said.append)
    assert any("ROUGE counts characters, BLEU tokenizes by zh" in line for line in said)
    assert made.facts()["bleu"] == "zh"


# -- through the command line -------------------------------------------------------------------


def trained(folder: Path, family: str, *more: object) -> Done:
    sizes = json.dumps({**SIZES[family], "vocab_size": 500})
    done = run(
        *TINY, f"model.checkpoint=scratch:{family}", "model.tokenizer=train", f"model.config={sizes}",
        "output_dir=run", *more, cwd=folder,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seq2seq")
    trained(folder, "t5")
    return folder / "run"


def plain(folder: Path, code: str) -> list[str]:
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True)
    return [eval(line) for line in done.stdout.strip().splitlines()]


def plain_code(folder: Path, code: str) -> str:
    guard = "import sys\ntry:\n    import torchvision\nexcept Exception:\n    sys.modules['torchvision'] = None\n"
    command = [sys.executable, "-c", guard + code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, check=True)
    return done.stdout.strip()


def predicted(folder: Path, *more: object) -> dict[str, Any]:
    done = run("predict", folder, "--text", TEXT, *more, cwd=folder)
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def test_scores_stand_beside_rivals_with_an_interval(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    names = {"rouge1", "rouge2", "rougeL", "chrf", "bleu", "exact_match"}
    assert names <= set(metrics["test"])
    assert len(metrics["test"]["rougeL_ci95"]) == 2
    assert {"copy", "lead"} == set(metrics["baselines"]["test"])
    assert metrics["best"]["metric"] == "rougeL"


def test_evaluate_gives_the_scores_of_the_run(finished: Path) -> None:
    done = run("evaluate", finished, "--json", cwd=finished)
    expected = {k: v for k, v in json.loads((finished / "metrics.json").read_text())["test"].items() if k != "loss"}
    assert json.loads(done.stdout)["metrics"] == expected


@pytest.mark.slow
def test_plain_transformers_writes_the_same_without_being_told_how(finished: Path) -> None:
    assert plain(finished, SETTINGS) == [predicted(finished)["generated"]]


@pytest.mark.slow
def test_the_cards_python_writes_what_predict_does(finished: Path) -> None:
    card = (finished / "README.md").read_text()
    code = next(part for part in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "generate" in part)
    text = re.search(r"tokenizer\((\".*?\"), truncation", code)[1]
    shown = plain_code(finished, code)
    assert shown == json.loads(run("predict", finished, "--text", eval(text), cwd=finished).stdout)["generated"]


def test_the_search_is_set_anew_for_each_prediction(finished: Path) -> None:
    found = predicted(finished, "task.num_beams=2", "task.max_new_tokens=3", "task.no_repeat_ngram_size=2")
    assert found["new_tokens"] <= 3
    done = run("predict", finished, "--text", TEXT, "task.max_length=9", cwd=finished)
    assert done.code == 2
    assert "task.max_length=9: predict can set task.max_new_tokens, task.num_beams" in done.stderr


@pytest.mark.slow
def test_bart_with_an_adapter_is_the_same_merged_and_beside_its_base(tmp_path: Path) -> None:
    trained(
        tmp_path, "bart", "lora.rank=4", "train.engine=accelerate", "optim.learning_rate=0.05", "train.max_steps=8",
        "model.config.init_std=0.3", "task.num_beams=2",
    )  # fmt: skip
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_2_SEQ_LM"
    merged, beside = plain(tmp_path / "run", SETTINGS + ADAPTER)
    assert merged == beside == predicted(tmp_path / "run")["generated"]


@pytest.mark.slow
@pytest.mark.parametrize("family", SIZES)
def test_both_engines_write_the_same(family: str, tmp_path: Path) -> None:
    found = []
    for engine in ("trainer", "accelerate"):
        (tmp_path / engine).mkdir()
        trained(tmp_path / engine, family, f"train.engine={engine}", "optim.learning_rate=0.01")
        found.append(json.loads((tmp_path / engine / "run" / "metrics.json").read_text())["test"])
    assert found[0] == found[1]


@pytest.mark.slow
def test_two_processes_write_and_score_what_one_does(tmp_path: Path) -> None:
    found = []
    for name, launcher in (("one", []), ("two", ["-m", "torch.distributed.run", "--nproc_per_node", "2"])):
        settings = [*TINY, f"model.config={json.dumps({**SIZES['t5'], 'vocab_size': 500})}", "optim.learning_rate=0.01"]
        command = [sys.executable, *launcher, str(ROOT / "run.py"), *settings, f"output_dir={tmp_path / name}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        assert json.loads((tmp_path / name / "environment.json").read_text())["processes"] == len(found) + 1
        found.append({split: metrics[split] for split in ("validation", "test")})
    assert found[1]["test"].pop("loss") == pytest.approx(found[0]["test"].pop("loss"), rel=1e-5)
    assert found[1]["validation"].pop("loss") == pytest.approx(found[0]["validation"].pop("loss"), rel=1e-5)
    assert found[1] == found[0]


def test_check_says_what_is_cut_of_sources_and_of_targets(tmp_path: Path) -> None:
    sizes = json.dumps({**SIZES["t5"], "vocab_size": 500})
    done = run("check", *TINY, f"model.config={sizes}", "task.max_length=12", "task.max_target_length=6", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "of tokens lost at 12" in done.stdout
    assert re.search(r"targets of train: \S+ % of rows cut.*Raise task\.max_target_length", done.stdout)


REFUSED = {
    "an encoder": (
        ["model.checkpoint=scratch:bert", "model.config={}"],
        "model type bert has no AutoModelForSeq2SeqLM, which this task needs",
    ),
    "a decoder": (["model.checkpoint=scratch:gpt2", "model.config={}"], "model type gpt2 has no AutoModelForSeq2SeqLM"),
    "no encoder-decoder": (
        ["model.checkpoint=scratch:voxtral", "model.config={}"],
        "model type voxtral is no encoder-decoder",
    ),
    "more than the positions": (
        ["model.checkpoint=scratch:bart", "model.config={max_position_embeddings: 64}", "task.max_new_tokens=64"],
        r"task.max_new_tokens 65: this model .bart. has 64 positions",
    ),
    "a missing column": (["task.target=notes"], "task.target: no column 'notes'. Columns: message, note"),
    "a penalty without beams": (["task.length_penalty=2.0"], "only used with task.num_beams above 1"),
    "an empty target": (
        ["data.source=hole.jsonl", "task.source=message", "task.target=note"],
        r"column 'note' is empty in 1 of 30 rows",
    ),
    "a target too long": (
        ["task.on_long=error", "task.max_target_length=6", "task.max_length=200"],
        "its target has .* tokens, more than task.max_target_length=6",
    ),
    "another metric": (["train.metric=accuracy"], "not among this task's metrics .loss, rougeL, rouge1, rouge2, chrf"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    arguments, message = REFUSED[name]
    hole = [{"message": f"message {i}", "note": "" if i == 4 else "note"} for i in range(30)]
    (tmp_path / "hole.jsonl").write_text("".join(json.dumps(one) + "\n" for one in hole))
    before = sorted(tmp_path.iterdir())
    done = run(*TINY, "output_dir=run", *arguments, cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert sorted(tmp_path.iterdir()) == before
