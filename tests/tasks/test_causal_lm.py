"""Causal language modelling: its loss and sums, and the whole path through the command line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel

from nlp_finetune import inference
from nlp_finetune.errors import InputError
from nlp_finetune.learning.losses import cross_entropy
from nlp_finetune.runtime import Runtime
from nlp_finetune.tasks.base import find, options_of
from tests.command_line import Done, run
from tests.tokenizers import letters

TINY = (
    "--recipe",
    "causal_lm",
    "--demo",
    "model.config={vocab_size: 400, n_positions: 64, n_embd: 32, n_layer: 1, n_head: 2}",
    "task.block_size=64",
    "train.threads=1",
    "train.max_steps=4",
)
TEXTS = ["abc def ghi", "x", "one two three four", "0123456789"]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
CHATS = "".join(
    json.dumps({"messages": [{"role": "user", "content": f"add {i}"}, {"role": "assistant", "content": f"is {i}."}]})
    + "\n"
    for i in range(30)
)
PAIRS = "".join(json.dumps({"prompt": f"count to {i}", "completion": f"{i}."}) + "\n" for i in range(30))


def task(**options):
    made = find("causal_lm")(options_of("causal_lm")(block_size=8, **options))
    return made, made.prepare({"train": rows(TEXTS)}, lambda line: None)["train"]


def rows(texts: list[str]) -> Dataset:
    return Dataset.from_dict({"text": texts, "row": list(range(1, len(texts) + 1))})


def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(letters()), n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0,
        initializer_range=0.5,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def scorer(of) -> inference.Model:
    here = Runtime(0, 1, 0, 1, torch.device("cpu"), 1)
    return inference.Model(of, model(), letters(), here, batch_size=3)


def test_the_objective_is_the_models_own_loss() -> None:
    made, data = task()
    encoded = inference.encode(made, data, letters())
    batch = made.collator(letters())([encoded[i] for i in range(len(encoded))])
    loss, _ = made.objective(cross_entropy)(model(), batch, made.count_items(batch))
    theirs = model()(**made.model_inputs(batch), labels=batch["labels"]).loss
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_predictions_are_sums_over_every_token_of_a_document() -> None:
    made, data = task()
    sums = np.stack(scorer(made).predictions(data))
    # All characters but the first, and the end of text.
    assert sums[:, 1].tolist() == [len(text) for text in TEXTS]
    assert made.metrics(sums, data)["loss"] == pytest.approx(sums[:, 0].sum() / sums[:, 1].sum())


def test_blocks_that_cross_documents_are_shared_out_to_them_token_by_token() -> None:
    made, data = task(cross_documents=True)
    found = scorer(made).run(data, objective=made.objective(cross_entropy))
    sums = np.stack(found.predictions)
    assert sums[:, 1].tolist() == [len(TEXTS[0]), *(len(text) + 1 for text in TEXTS[1:])]
    assert found.loss == pytest.approx(made.metrics(sums, data)["loss"], rel=1e-5)


def test_the_interval_resamples_documents() -> None:
    made, data = task()
    sums = scorer(made).predictions(data)
    resampled = made.resampled_metric("perplexity", sums, data)
    assert resampled(np.array([2, 2])) == made.metrics([sums[2], sums[2]], data)["perplexity"]


def test_rows_whose_prompt_leaves_no_room_lose_its_beginning_in_generation() -> None:
    made, _ = task(max_new_tokens=10)
    (answer,) = scorer(made).answers(rows(["abcdefghijklmnopqrst"]))
    assert answer["new_tokens"] == 10 or answer["finished"]
    too_many, _ = task(max_new_tokens=16)
    with pytest.raises(InputError, match="leaves no room for a prompt: the model has 16 positions"):
        scorer(too_many).answers(rows(["a"]))


def test_a_test_split_without_completions_is_left_out() -> None:
    train = Dataset.from_dict({"prompt": ["a"], "completion": ["b"], "row": [1]})
    made = find("causal_lm")(options_of("causal_lm")())
    said: list[str] = []
    assert list(made.prepare({"train": train, "test": train.remove_columns("completion")}, said.append)) == ["train"]
    assert any(line.startswith("test: ") for line in said)


# -- through the command line -------------------------------------------------------------------


def trained(folder: Path, *more: object) -> Done:
    done = run(*TINY, "output_dir=run", *more, cwd=folder)
    assert done.code == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causal_lm")
    trained(folder)
    return folder / "run"


def test_scores_are_per_token_with_an_interval_and_rivals_that_count(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    test = metrics["test"]
    assert test["perplexity"] == pytest.approx(np.exp(test["loss"]))
    assert test["perplexity_ci95"][0] < test["perplexity"] < test["perplexity_ci95"][1]
    assert 0 <= test["token_accuracy"] <= 1
    assert metrics["baselines"]["test"]["bigram"]["perplexity"] < metrics["baselines"]["test"]["unigram"]["perplexity"]


def test_the_lowest_perplexity_is_the_best(tmp_path: Path) -> None:
    trained(tmp_path, "train.eval_every=1", "optim.learning_rate=5.0", "optim.warmup=0")
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    found = {line["step"]: line["validation"]["perplexity"] for line in lines if "validation" in line}
    best = json.loads((tmp_path / "run" / "metrics.json").read_text())["best"]
    assert len(set(found.values())) == 4
    assert best["step"] == min(found, key=found.__getitem__)


def test_evaluate_gives_the_scores_of_the_run(finished: Path) -> None:
    done = run("evaluate", finished, "--json", cwd=finished)
    assert json.loads(done.stdout)["metrics"] == json.loads((finished / "metrics.json").read_text())["test"]


def test_a_text_file_is_scored_by_paragraphs_and_continued_by_lines(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("A river does not hurry\nnear its mouth.\n\nThe old man\nsells chestnuts.\n")
    done = run("evaluate", finished, "--data", "book.txt", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["metrics"]["rows"] == 2
    done = run("predict", finished, "--input", "book.txt", "--output", "out.jsonl", cwd=tmp_path)
    assert done.code == 0, done.stderr
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [set(one) for one in written] == [{"row", "text", "generated", "new_tokens", "finished"}] * 4


def test_sampling_is_set_anew_for_each_prediction_and_is_repeatable(finished: Path) -> None:
    ask = ["predict", finished, "--text", "The old man", "task.do_sample=true", "task.max_new_tokens=9"]
    first, again, other = (run(*ask, f"task.seed={seed}", cwd=finished).stdout for seed in (1, 1, 2))
    assert json.loads(first)["new_tokens"] <= 9
    assert first == again != other


def test_what_training_decided_is_not_set_anew(finished: Path) -> None:
    done = run("predict", finished, "--text", "x", "task.block_size=32", cwd=finished)
    assert done.code == 2
    assert "task.block_size=32: predict can set task.max_new_tokens, task.do_sample" in done.stderr


@pytest.mark.slow
def test_plain_transformers_generates_the_same(finished: Path) -> None:
    code = (
        "import sys\n"
        "try:\n    import torchvision\n"
        "except Exception:\n    sys.modules['torchvision'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"folder = {str(finished / 'model')!r}\n"
        "model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)\n"
        "inputs = tokenizer('The old man', return_tensors='pt')\n"
        "new = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs['input_ids'].shape[1]:]\n"
        "assert not any(name.startswith('nlp_finetune') for name in sys.modules)\n"
        "print(repr(tokenizer.decode(new, skip_special_tokens=True)))\n"
    )
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    done = run("predict", finished, "--text", "The old man", "task.max_new_tokens=12", cwd=finished)
    assert json.loads(done.stdout)["generated"] == eval(plain.stdout.strip().splitlines()[-1])


def test_a_chat_is_learned_through_its_template_and_answered(tmp_path: Path) -> None:
    tokenizer = letters()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "chats.jsonl").write_text(CHATS)
    trained(tmp_path, "data.source=chats.jsonl", "model.tokenizer=tokenizer")
    done = run("predict", tmp_path / "run", "--text", "add 3", "task.max_new_tokens=4", cwd=tmp_path)
    assert set(json.loads(done.stdout)) == {"generated", "new_tokens", "finished"}


def test_prompts_and_completions_are_found_and_a_prompt_alone_is_continued(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(PAIRS)
    done = trained(tmp_path, "data.source=pairs.jsonl", "train.engine=accelerate")
    assert "completion: completion, learned from alone" in done.stderr
    done = run("predict", tmp_path / "run", "--text", "count to 3", cwd=tmp_path)
    assert done.code == 0, done.stderr


REFUSED = {
    "an encoder": (
        ["model.checkpoint=scratch:bert", "model.config={hidden_size: 32}"],
        "model type bert reads in both directions",
    ),
    "more than the positions": (["task.block_size=65"], "task.block_size 65: this model .gpt2. has 64 positions"),
    "no chat template": (["data.source=chats.jsonl"], "has no chat template"),
    "a chat of nothing": (["data.source=silent.jsonl"], "'messages', row 2: message 1 has no content"),
    "joined prompts": (["data.source=pairs.jsonl", "task.cross_documents=true"], "task.cross_documents joins plain"),
    "two kinds": (["task.messages=m"], "task.messages .command line.: text is set too; rows are one or the other"),
    "an idle option": (["task.top_p=0.5"], "task.top_p .command line.: only used with task.do_sample=true"),
    "a missing column": (["task.text=body"], "task.text: no column 'body'"),
    "a missing half": (["data.source=pairs.jsonl", "task.prompt=prompt"], "task.completion is needed too"),
    "one document": (["data.source=one.txt", "task.document=file"], "one row of data is too few"),
    "another metric": (["train.metric=accuracy"], "not among this task's metrics .loss, perplexity, token_accuracy"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    arguments, message = REFUSED[name]
    (tmp_path / "chats.jsonl").write_text(CHATS)
    (tmp_path / "pairs.jsonl").write_text(PAIRS)
    (tmp_path / "silent.jsonl").write_text(CHATS.replace('"add 1"', '""', 1))
    (tmp_path / "one.txt").write_text("One text.\n\nAll of it.\n")
    before = sorted(tmp_path.iterdir())
    done = run(*TINY, "output_dir=run", *arguments, cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_a_real_llama_learns_prompts_and_completions(shared_data: Path, tmp_path: Path) -> None:
    lines = [f"{a} plus {b} is" for a in range(1, 10) for b in range(1, 10)]
    data = [{"prompt": line, "completion": f"{int(line[0]) + int(line[7])}."} for line in lines]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(one) + "\n" for one in data))
    done = run(
        "--recipe", "causal_lm", f"model.checkpoint={shared_data / 'checkpoints' / 'stories260K'}",
        "data.source=sums.jsonl", "train.max_steps=60", "train.batch_size=16", "optim.learning_rate=1e-3",
        "task.block_size=64", "output_dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["validation"]["perplexity"] < metrics["baselines"]["validation"]["unigram"]["perplexity"] / 3
    (answer,) = json.loads(run("predict", "run", "--text", "3 plus 4 is", "--json", cwd=tmp_path).stdout)
    assert answer["finished"]
    assert answer["generated"].strip().rstrip(".").isdigit()
