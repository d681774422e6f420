"""Imports run downwards only, and what must be quick imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LAYERS = (
    ("cli", "__main__"),
    (
        "check",
        "planning",
        "train",
        "finishing",
        "souping",
        "resuming",
        "recovery",
        "fitting",
        "range_test",
        "search",
        "repeat",
        "series",
        "folds",
        "imbalance",
        "stages",
    ),
    ("reports", "deploy", "cluster"),
    (
        "build",
        "preparation",
        "augmenting",
        "arguments",
        "callbacks",
        "choices",
        "faster",
        "metering",
        "prefix_cache",
        "prefix_trial",
        "scoring",
    ),
    ("engines", "inference", "saved_runs"),
    ("tasks",),
    ("runs", "data", "models", "learning", "augment", "metrics"),
    ("recipe", "stopping"),
    ("job", "allocator", "joining", "network", "runtime", "strategy", "torchvision_guard", "versions"),
    ("errors", "__init__"),
)
"""From top to bottom; a module may import its own layer and those below."""

ROOT = Path(__file__).resolve().parent.parent / "nlp_finetune"
LEVEL = {name: depth for depth, names in enumerate(LAYERS) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Parts of this package that a file imports at run time, inside functions too."""
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):  # what only the type checker sees is no dependency
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nlp_finetune"):
            part = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            names |= set(part)
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("nlp_finetune.")}
    return names - {"__version__"}


def test_every_part_has_a_layer() -> None:
    parts = {f.relative_to(ROOT).parts[0].removesuffix(".py") for f in FILES}
    assert parts <= set(LEVEL)
    assert len(FILES) > 40


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_run_downwards(file: Path) -> None:
    own = LEVEL[file.relative_to(ROOT).parts[0].removesuffix(".py")]
    upwards = sorted(part for part in imported(file) if LEVEL[part] < own)
    assert not upwards, f"{file.name} imports {upwards}, which is above it"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_parts_that_take_plain_arguments_know_no_recipe(file: Path) -> None:
    part = file.relative_to(ROOT).parts[0]
    if part in ("data", "models", "learning", "augment", "metrics"):
        assert "recipe" not in imported(file)
    if part == "engines":
        assert not imported(file) & {"recipe", "tasks"}


def test_no_part_but_tasks_compares_task_names() -> None:
    from nlp_finetune.tasks.base import names

    quoted = {f'"{name}"' for name in names()}
    for file in FILES:
        if file.relative_to(ROOT).parts[0] != "tasks":
            compared = {
                ast.unparse(node).replace("'", '"')
                for node in ast.walk(ast.parse(file.read_text("utf-8")))
                if isinstance(node, ast.Compare)
            }
            assert not [text for text in compared for name in quoted if name in text], file


@pytest.mark.parametrize(
    "module", ["cli", "recipe", "tasks.base", "tasks.text_classification", "tasks.token_classification", "runtime"]
)
def test_what_must_be_quick_imports_nothing_heavy(module: str) -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'numpy', 'sklearn'}"
    code = f"import sys, nlp_finetune.{module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=True)
    assert done.stdout.strip() == "[]"
