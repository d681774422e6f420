"""The verb that suggests a learning rate: lr-find."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from nlp_finetune.cli import output
from nlp_finetune.cli.recipes import add_recipe_arguments, load_recipe
from nlp_finetune.errors import EXIT_DONE, InputError
from nlp_finetune.runtime import say, set_up_log

if TYPE_CHECKING:
    from nlp_finetune.range_test import RangeTest

_SHOWN = 10


def add_lr_find_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lr-find`."""
    add_recipe_arguments(parser)
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of the test (default 100)")
    parser.add_argument("--low", type=float, default=1e-7, metavar="RATE", help="rate of the first step (1e-7)")
    parser.add_argument("--high", type=float, default=1.0, metavar="RATE", help="rate of the last step (1)")
    parser.add_argument("--output", default="lr-find.html", metavar="FILE", help="the page to write (lr-find.html)")
    parser.add_argument("--json", action="store_true", help="print rates, losses and suggestion as JSON")


def lr_find(arguments: argparse.Namespace) -> int:
    """Train with a growing rate, say where the loss falls fastest, and draw it; neither model nor recipe change."""
    set_up_log(quiet=arguments.quiet)
    target = Path(arguments.output)
    _check(arguments, target)
    loaded = load_recipe(arguments)
    for note in loaded.notes:
        say(note)
    from nlp_finetune.range_test import range_test

    found, here = range_test(loaded.recipe, steps=arguments.steps, low=arguments.low, high=arguments.high)
    if not here.is_main:
        return EXIT_DONE
    from nlp_finetune.reports.rates import write_page

    try:
        write_page(found, target, name=loaded.recipe.name)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}). Set --output FILE.") from error
    if arguments.json:
        losses = [loss if math.isfinite(loss) else None for loss in found.losses]
        document = {"suggestion": found.suggestion, "rates": found.rates, "losses": losses, "page": str(target)}
        print(json.dumps(document, indent=2))
    else:
        _show(found, target)
    return EXIT_DONE


def _check(arguments: argparse.Namespace, target: Path) -> None:
    if arguments.steps < 20:
        raise InputError(f"--steps {arguments.steps}: at least 20, or there is nothing to read.")
    if not 0 < arguments.low < arguments.high < math.inf:
        raise InputError(f"--low {arguments.low:g} --high {arguments.high:g}: 0 < low < high.")
    if target.is_dir():
        raise InputError(f"--output {target}: is a folder; give the name of a file in it.")
    if not target.absolute().parent.is_dir():
        raise InputError(f"--output {target}: there is no folder {target.parent}.")


def _show(found: RangeTest, target: Path) -> None:
    means = found.smoothed
    every = max(1, len(means) // _SHOWN)
    rows = [(f"{found.rates[i]:.1e}", f"{means[i]:.4f}") for i in range(0, len(means), every)]
    output.table(("rate", "loss, smoothed"), rows)
    lowest = min(range(len(means)), key=means.__getitem__) if means else 0
    if found.suggestion is None:
        bound = "" if found.rises_at is None else f" It rises from {found.rises_at:.1e} on: stay far below that."
        output.line(
            f"\nno suggestion: over {len(found.losses)} steps the loss did not fall ({found.ended}).{bound} "
            "More --steps, or a larger train.batch_size, may show more."
        )
    else:
        output.line(
            f"\nsuggestion: optim.learning_rate={found.suggestion:.1e} (the recipe has {found.recipe_rate:g}). The "
            f"loss was lowest at {found.rates[lowest]:.1e}; {found.ended} after {len(found.losses)} steps."
        )
    output.line(f"written: {target}")
