"""Ways of changing rows that do not fit a task are refused before training, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nlp_finetune import augmenting
from nlp_finetune.errors import InputError
from nlp_finetune.recipe import Augment
from nlp_finetune.tasks import base
from tests.command_line import run
from tests.tiny import TINY
from tests.tiny_runs import SENTENCES, stop

ALL = dict.fromkeys(("insert", "swap", "delete", "punctuation", "case", "typo"), 0.1)
REFUSED = {
    "token_classification": ["insert", "swap", "delete", "punctuation"],
    "masked_lm": list(ALL),
    "causal_lm": list(ALL),
    "image_classification": list(ALL),
}


def task(name: str, **options: Any) -> base.BaseTask:
    kind = base.find(name)
    return kind(kind.Options(**options))


@pytest.mark.parametrize("name", base.names())
@pytest.mark.parametrize("key", ALL)
def test_tasks_refuse_what_would_break_their_rows_and_nothing_else(name: str, key: str) -> None:
    section = Augment(**{key: 0.1})
    if key in REFUSED.get(name, []):
        with pytest.raises(InputError, match=f"^augment.{key}: .*{name}"):
            augmenting.check(section, task(name))
    else:
        augmenting.check(section, task(name))


def test_a_refusal_says_what_is_broken_and_what_fits() -> None:
    with pytest.raises(InputError) as caught:
        augmenting.check(Augment(delete=0.1), task("token_classification"))
    assert str(caught.value) == (
        "augment.delete: does not keep words, which token_classification needs; masked_lm, synonym, case, typo do."
    )


@pytest.mark.slow
def test_a_misfit_ends_the_command_before_training(tmp_path: Path) -> None:
    settings = ("augment.synonym=0.1", "augment.synonym_table=nowhere.tsv", f"output_dir={tmp_path / 'run'}")
    done = run("train", *TINY, *settings, cwd=tmp_path)
    assert done.code == 2
    assert "augment.synonym_table nowhere.tsv: can't be read" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_does_not_go_on_with_another_table_of_synonyms(tmp_path: Path) -> None:
    table = tmp_path / "table.tsv"
    table.write_text("good\tfine\n")
    settings = (*SENTENCES, "augment.synonym=0.1", f"augment.synonym_table={table}")
    assert [one.code for one in stop(tmp_path, *settings, lines=2)] == [75]
    table.write_text("good\tnice\n")
    done = run("train", *settings, "output_dir=run", cwd=tmp_path)
    assert done.code == 2
    assert "the table of synonyms is another" in done.stderr


@pytest.mark.parametrize("name", base.names())
@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_rows_are_mixed_where_they_have_labels_of_their_own_and_parts_come_from_images(name: str, key: str) -> None:
    fits = {"text_classification": ["mixup"], "image_classification": ["mixup", "cutmix"]}
    kind = task(name)
    assert (kind.mixes is not None and (key == "mixup" or kind.mixes == "pixels")) == (key in fits.get(name, []))
