"""Where recipes lie, and which values of a recipe name files."""

from __future__ import annotations

from pathlib import Path

import nlp_finetune
from nlp_finetune.errors import InputError
from nlp_finetune.recipe.problems import did_you_mean

FILE_ENDINGS = (
    ".csv",
    ".tsv",
    ".tab",
    ".txt",
    ".json",
    ".jsonl",
    ".ndjson",
    ".parquet",
    ".arrow",
    ".feather",
    ".conll",
    ".bio",
    ".iob",
    ".iob2",
    ".bioes",
    ".bmes",
)
"""How the names of data files end, a further `.gz` apart."""


def names_a_file(value: object) -> bool:
    """Whether a value of `data.train`, `validation` or `test` is a file and not a split of the source."""
    if not isinstance(value, str):
        return False
    ends_like_one = value.lower().removesuffix(".gz").endswith(FILE_ENDINGS)
    return ends_like_one or "/" in value or value.startswith("~") or Path(value).is_file()


def shipped() -> dict[str, Path]:
    """Recipes that come with the package, by name."""
    package = Path(nlp_finetune.__file__).parent
    # An installed wheel carries them inside the package, a checkout beside it.
    folder = next((f for f in (package / "recipes", package.parent / "recipes") if f.is_dir()), None)
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))} if folder else {}


def find(reference: str) -> Path:
    """File of a recipe: a shipped name, a YAML file, or a folder that holds a `recipe.yaml` (a run).

    Raises `InputError` if there is none.
    """
    recipes = shipped()
    if reference in recipes:
        return recipes[reference]
    path = Path(reference).expanduser()
    if path.is_file():
        return path
    if (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    if path.is_dir():
        raise InputError(f"recipe {reference}: this folder holds no recipe.yaml")
    if path.suffix in (".yaml", ".yml") or path.name != reference:
        near = _near_file(path) or did_you_mean(path.stem, recipes)
        raise InputError(f"recipe {reference}: no such file{near}")
    raise InputError(
        f"recipe {reference}: neither shipped nor a file{did_you_mean(reference, recipes)}"
        f"\nShipped recipes: {', '.join(recipes)}"
    )


def _near_file(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    return did_you_mean(path.name, [f.name for f in path.parent.iterdir() if f.suffix in (".yaml", ".yml")])


def shown(path: Path) -> str:
    """Path as a user would type it: relative where it lies below the current folder."""
    absolute = path.absolute()
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)
