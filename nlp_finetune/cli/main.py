"""Find the verb, parse its arguments, run it, and turn what it raises into a message and an exit code.

    0 done    1 failed    2 the user's input is wrong    75 stopped, the same command goes on
    130 interrupted

stdout is for results, stderr for everything else.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import select
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import nlp_finetune
from nlp_finetune.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INPUT,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    InputError,
    NlpFinetuneError,
)
from nlp_finetune.recipe.finding import shipped
from nlp_finetune.recipe.problems import did_you_mean

EXIT_BROKEN_PIPE = 141
_STDOUT = 1


@dataclass(frozen=True)
class Verb:
    """One verb: its name, one line of help, and the module (imported on use) with its two functions.

    `add_arguments(parser)` declares the arguments, `run(arguments)` returns the exit code.
    """

    name: str
    help: str
    module: str
    add_arguments: str
    run: str


_TRAINING = "nlp_finetune.cli.training"
_INFERRING = "nlp_finetune.cli.inferring"
_RECIPES = "nlp_finetune.cli.recipes"

VERBS = (
    Verb("train", "fine-tune, evaluate and save (the default)", _TRAINING, "add_train_arguments", "train"),
    Verb(
        "check",
        "what training would do and what is wrong with the data",
        _TRAINING,
        "add_check_arguments",
        "check",
    ),
    Verb(
        "lr-find",
        "a learning-rate range test, and the rate that it suggests",
        "nlp_finetune.cli.lr_find",
        "add_lr_find_arguments",
        "lr_find",
    ),
    Verb("evaluate", "score a run on labelled data", _INFERRING, "add_evaluate_arguments", "evaluate"),
    Verb("predict", "label new data with a run", _INFERRING, "add_predict_arguments", "predict"),
    Verb("push", "push a run to the Hub", "nlp_finetune.cli.hub", "add_push_arguments", "push"),
    Verb("launch", "write a job for Slurm or torchrun", "nlp_finetune.cli.launch", "add_launch_arguments", "launch"),
    Verb(
        "doctor",
        "is this machine, or this job's, fit to train",
        "nlp_finetune.cli.doctor",
        "add_doctor_arguments",
        "doctor",
    ),
    Verb(
        "report",
        "a page of a run, or of several compared",
        "nlp_finetune.cli.reports",
        "add_report_arguments",
        "report",
    ),
    Verb("list", "the shipped recipes, one line each", _RECIPES, "add_list_arguments", "list_recipes"),
    Verb("show", "a recipe with everything resolved", _RECIPES, "add_show_arguments", "show"),
    Verb("schema", "JSON Schema of a recipe, for editors", _RECIPES, "add_schema_arguments", "schema"),
)
_DEFAULT = VERBS[0]


class _Parser(argparse.ArgumentParser):
    """Raises `InputError` where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}\nAll options: {self.prog} --help")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse options and positional arguments in any order; say what an unknown one was meant to be."""
        # Before argparse looks: it would report a misspelt option as a required one that is missing.
        options = set(re.findall(r"--[a-z][\w-]*", self.format_help()))
        unknown = [w for w in argv if w.startswith("--") and len(w) > 2 and w.partition("=")[0] not in options]
        if unknown:
            self.error("; ".join(_explain(word, options) for word in unknown))
        arguments, left = self.parse_known_intermixed_args(argv)
        if left:
            self.error(f"unknown argument {' '.join(left)}")
        return arguments


def _explain(word: str, options: Iterable[str]) -> str:
    name, equals, _ = word.partition("=")
    if equals and "." in name:
        return f"{word}: an override has no dashes: {word.lstrip('-')}"
    return f"unknown argument {word}{did_you_mean(name, options)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        code = _run(words)
        sys.stdout.flush()
    except BaseException as error:
        return _report(error, debug=debug)
    return code


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview(), file=sys.stdout if words else sys.stderr)
        return EXIT_DONE if words else EXIT_INPUT
    if words[0] == "--version":
        print(nlp_finetune.__version__)
        return EXIT_DONE
    verb, rest = _find(words)
    module = importlib.import_module(verb.module)
    parser = _Parser(prog=f"{_program()} {verb.name}", description=_sentence(verb.help), allow_abbrev=False)
    getattr(module, verb.add_arguments)(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--quiet", action="store_true", help="print results and errors only")
    arguments = parser.parse(rest)
    code: int = getattr(module, verb.run)(arguments)
    return code


def _find(words: list[str]) -> tuple[Verb, list[str]]:
    """Verb of a command line and the words that are left; options may stand before the verb."""
    place = next((i for i, word in enumerate(words) if word not in ("--debug", "--quiet")), 0)
    word = words[place]
    verb = next((verb for verb in VERBS if verb.name == word), None)
    if verb is not None:
        return verb, words[:place] + words[place + 1 :]
    if word.startswith("-") or "=" in word:
        return _DEFAULT, words
    if word in shipped() or word.endswith((".yaml", ".yml")):
        raise InputError(f"{word} is a recipe and not a verb: {_program()} train --recipe {word}")
    names = [verb.name for verb in VERBS]
    raise InputError(f"no verb is called '{word}'{did_you_mean(word, names)}\nVerbs: {', '.join(names)}")


def _program() -> str:
    name = Path(sys.argv[0]).name
    return name if name == "run.py" else "nlp-finetune"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _overview() -> str:
    program = _program()
    launch = f"accelerate launch {program}" if program == "run.py" else program
    verbs = "\n".join(f"  {verb.name:<10} {verb.help}" for verb in VERBS)
    return f"""\
{nlp_finetune.__doc__.splitlines()[0] if nlp_finetune.__doc__ else ""}

usage: {program} [VERB] [options] [key=value ...]

verbs:
{verbs}

examples:
  {launch} --recipe text_cls --demo
  {launch} --recipe text_cls data.source=reviews.csv train.epochs=2
  {program} show --recipe text_cls --origins optim.learning_rate=5e-5

{program} VERB --help shows the options of a verb; --debug shows the traceback of an error."""


def _report(error: BaseException, *, debug: bool) -> int:
    """Print what an exception means for the user and return its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_DONE if error.code is None else EXIT_FAILED
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError) and _stdout_is_closed():
        return EXIT_BROKEN_PIPE
    if debug:
        traceback.print_exception(error)
    if isinstance(error, NlpFinetuneError):
        print(_message(error), file=sys.stderr)
        return error.exit_code
    hint = "" if debug else " (run again with --debug for the traceback)"
    first = next(iter(str(error).splitlines()), "")
    print(f"unexpected error: {type(error).__name__}: {first}{hint}", file=sys.stderr)
    return EXIT_FAILED


def _message(error: NlpFinetuneError) -> str:
    """The message; processes that share a machine with the one that says it all say one line."""
    process = os.environ.get("LOCAL_RANK", "0")
    if process == "0":
        return f"error: {error}" if error.exit_code != EXIT_STOPPED else str(error)
    return f"[process {process}] {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def _stdout_is_closed() -> bool:
    """Whether the reader of stdout is gone (`| head`); if so, nothing more is written there."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    if not poll.poll(0):
        return False
    # Python flushes stdout once more on exit, and would complain there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    return True
