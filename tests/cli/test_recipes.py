"""The command line around recipes: finding the verb, `list`, `show`, `schema`, errors and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import nlp_finetune.cli.recipes as verbs
from nlp_finetune import __version__
from nlp_finetune.cli import main
from nlp_finetune.errors import InputError, NlpFinetuneError, StoppedError
from nlp_finetune.recipe import shipped

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]
Raise = Callable[[BaseException], None]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "run.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def list_raises(monkeypatch: pytest.MonkeyPatch) -> Raise:
    """Let the verb `list` raise an exception."""

    def install(error: BaseException) -> None:
        def fail(_: object) -> int:
            raise error

        monkeypatch.setattr(verbs, "list_recipes", fail)

    return install


def test_list_prints_a_line_for_each_recipe(capsys: Capture) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(shipped())
    described = dict(line.split(maxsplit=1) for line in lines)
    assert described["text_cls"] == "Sentiment of English sentences, BERT on SST-2"


def test_list_as_json_names_and_describes(capsys: Capture) -> None:
    assert main(["list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [sorted(entry) for entry in document] == [["description", "name"]] * len(shipped())


def test_show_prints_yaml_that_is_a_recipe_again(capsys: Capture, tmp_path: Path) -> None:
    assert main(["show", "--recipe", "text_cls", "optim.learning_rate=5e-5"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
    assert main(["show", "--recipe", str(tmp_path / "again.yaml")]) == 0
    assert capsys.readouterr().out == text
    assert yaml.safe_load(text)["optim"]["learning_rate"] == 5e-5


def test_show_applies_the_demo(capsys: Capture) -> None:
    assert main(["show", "--recipe", "text_cls", "--demo", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert yaml.safe_load(shown.out)["data"]["source"] == "demo:reviews"
    assert shown.err == ""


def test_show_says_on_stderr_what_an_override_cleared(capsys: Capture) -> None:
    assert main(["show", "--recipe", "text_pair", "data.source=x.csv"]) == 0
    shown = capsys.readouterr()
    assert "data.source=x.csv (command line) cleared task.text, task.label" in shown.err
    assert "cleared" not in shown.out


def test_show_with_origins_says_where_each_value_comes_from(capsys: Capture) -> None:
    assert main(["show", "--recipe", "text_cls", "--origins", "train.seed=7", "data.source=x.csv"]) == 0
    lines = [line.split("  # ") for line in capsys.readouterr().out.splitlines()]
    origins = {parts[0].strip(): parts[1] for parts in lines if len(parts) == 2}
    assert origins["train.seed: 7"] == "command line"
    assert origins["train.bucket: true"] == "default"
    assert origins["task.text: null"] == "default; cleared by data.source (command line)"
    assert "text_cls.yaml:" in origins["train.batch_size: 32"]


def test_show_as_json_holds_recipe_origins_and_notes(capsys: Capture) -> None:
    assert main(["show", "--recipe", "text_cls", "--json", "train.seed=7"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["recipe"]["train"]["seed"] == 7
    assert document["origins"]["train.seed"] == "command line"
    assert document["notes"] == []


def test_schema_is_json_schema_of_a_recipe(capsys: Capture) -> None:
    assert main(["schema"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["properties"]) >= {"task", "model", "data", "loss", "optim", "train", "demo"}


def test_schema_as_markdown_is_the_reference(capsys: Capture) -> None:
    assert main(["schema", "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("# Recipe reference\n")


def test_options_and_overrides_mix_in_any_order(capsys: Capture) -> None:
    assert main(["--quiet", "show", "train.seed=1", "--recipe", "text_cls", "train.epochs=2", "--json"]) == 0
    train = json.loads(capsys.readouterr().out)["recipe"]["train"]
    assert (train["seed"], train["epochs"]) == (1, 2.0)


def test_help_lists_the_verbs_with_a_line_each(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("train", "check", "evaluate", "predict", "list", "show", "schema"):
        assert f"\n  {name} " in text
    assert text.count("--recipe text_cls") == 3


def test_help_of_a_verb_lists_its_options(capsys: Capture) -> None:
    assert main(["show", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--recipe", "--demo", "--origins", "--debug", "--quiet"))


def test_no_arguments_print_the_help_on_stderr(capsys: Capture) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert (shown.out, "verbs:" in shown.err) == ("", True)


def test_version_is_printed(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_train_is_the_default_verb(capsys: Capture) -> None:
    assert main(["--recipe", "text_clss"]) == 2
    assert "did you mean 'text_cls'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["shwo"], "no verb is called 'shwo'; did you mean 'show'?"),
        (["text_cls"], "train --recipe text_cls"),
        (["mine.yaml"], "train --recipe mine.yaml"),
        (["show"], "required: --recipe"),
        (["show", "--recpe", "text_cls"], "unknown argument --recpe; did you mean '--recipe'?"),
        (["show", "--recipe", "text_cls", "--train.seed=1"], "an override has no dashes: train.seed=1"),
        (["show", "--recipe"], "expected one argument"),
        (["list", "extra"], "unknown argument extra"),
        (["list", "--jso"], "did you mean '--json'?"),
        (["show", "--recipe", "text_cls", "train.sed=1"], "did you mean 'seed'?"),
        (["train.sed=1", "--recipe", "text_cls"], "did you mean 'seed'?"),
        (["show", "--recipe", "text_cls", "train.seed"], "an override is written key=value"),
    ],
)
def test_wrong_arguments_exit_2_with_one_message(capsys: Capture, arguments: list[str], says: str) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert says in shown.err
    assert shown.err.count("error: ") == 1
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (InputError("wrong column"), 2, "error: wrong column"),
        (NlpFinetuneError("loss is not finite"), 1, "error: loss is not finite"),
        (StoppedError("stopped; go on with: x"), 75, "stopped; go on with: x"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            ZeroDivisionError("a\nb"),
            1,
            "unexpected error: ZeroDivisionError: a (run again with --debug for the traceback)",
        ),
        (RuntimeError(), 1, "unexpected error: RuntimeError:  (run again with --debug for the traceback)"),
    ],
)
def test_what_a_verb_raises_becomes_a_message_and_an_exit_code(
    capsys: Capture, list_raises: Raise, error: BaseException, code: int, says: str
) -> None:
    list_raises(error)
    assert main(["list"]) == code
    assert capsys.readouterr().err == f"{says}\n"


@pytest.mark.parametrize("error", [InputError("wrong"), ValueError("odd")])
def test_debug_shows_the_traceback(capsys: Capture, list_raises: Raise, error: BaseException) -> None:
    list_raises(error)
    main(["list", "--debug"])
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert str(error) in text.splitlines()[-1]


def test_other_processes_of_a_machine_say_one_line(
    capsys: Capture, list_raises: Raise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    list_raises(InputError("wrong column\nand more"))
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "[process 3] wrong column\n"


def test_a_broken_pipe_that_is_not_stdout_is_an_error(capsys: Capture, list_raises: Raise) -> None:
    list_raises(BrokenPipeError(32, "Broken pipe"))
    assert main(["list"]) == 1
    assert "unexpected error: BrokenPipeError" in capsys.readouterr().err


def test_a_reader_that_closes_stdout_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "run.py", "schema"], cwd=ROOT, stdout=write_end, stderr=subprocess.PIPE, check=False
    )
    os.close(write_end)
    assert done.stderr == b""


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["show", "--recipe", "text_cls_ernie", "--demo", "--origins"],
        ["schema"],
        ["train", "--recipe", "text_cls", "optim.lr=1"],
        ["train", "--recipe", "nothing"],
        ["train", "--help"],
    ],
)
def test_no_torch_is_imported_without_need(arguments: list[str]) -> None:
    code = (
        "import sys; from nlp_finetune.cli import main; main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'accelerate', 'pandas', 'pyarrow'};"
        "print('HEAVY', sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "HEAVY []"


def test_run_py_passes_on_the_exit_code() -> None:
    done = run("show", "--recipe", "text_cls", "train.engine=x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: recipe text_cls: train.engine (command line)")
