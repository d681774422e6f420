"""Layers of a recipe: what wins, what is cleared, and where a value comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from nlp_finetune.errors import InputError
from nlp_finetune.recipe import Loaded, find, load, to_yaml
from nlp_finetune.recipe.schema import OPTIONAL, SECTIONS

Read = Callable[..., Loaded]


def test_defaults_come_from_the_schema(read: Read, minimal: str) -> None:
    recipe = read(minimal).recipe
    assert (recipe.train.epochs, recipe.train.seed, recipe.optim.learning_rate) == (3.0, 13, 2e-5)


def test_later_layers_win(read: Read, minimal: str) -> None:
    text = minimal + "optim: {learning_rate: 1e-5}\ndemo: {optim.learning_rate: 2e-4}\n"
    assert read(text).recipe.optim.learning_rate == 1e-5
    assert read(text, demo=True).recipe.optim.learning_rate == 2e-4
    assert read(text, "optim.learning_rate=3e-3", demo=True).recipe.optim.learning_rate == 3e-3


def test_the_later_of_two_overrides_wins(read: Read, minimal: str) -> None:
    assert read(minimal, "train.seed=1", "train.seed=2").recipe.train.seed == 2


def test_a_demo_may_be_nested_or_dotted(read: Read, minimal: str) -> None:
    dotted = read(minimal + "demo: {train.seed: 5, task.max_length: 9}\n", demo=True).recipe
    nested = read(minimal + "demo: {train: {seed: 5}, task: {max_length: 9}}\n", demo=True).recipe
    assert dotted == nested
    assert dotted.train.seed == 5


def test_a_recipe_without_a_name_takes_its_files(read: Read, minimal: str) -> None:
    loaded = read(minimal.replace("name: example\n", ""))
    assert loaded.recipe.name == "example"
    assert loaded.origins["name"] == "file name"


def test_an_empty_section_means_its_defaults(read: Read, minimal: str) -> None:
    assert read(minimal + "loss:\n").recipe.loss.name == "auto"


def test_an_override_into_an_empty_section_creates_it(read: Read, minimal: str) -> None:
    assert read(minimal + "loss:\n", "loss.name=focal").recipe.loss.name == "focal"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("data.columns=[text,label]", "data.columns", ["text", "label"]),
        ("data.columns=text", "data.columns", ["text"]),
        ("task.text=[1, 2]", "task.text", ["1", "2"]),
        ("task.label=1", "task.label", "1"),
        ("task.label=[a, b]", "task.label", ["a", "b"]),
        ("train.patience=null", "train.patience", None),
        ("train.patience=", "train.patience", None),
        ("model.checkpoint=scratch:bert", "model.checkpoint", "scratch:bert"),
        ("model.revision=0012", "model.revision", "0012"),
        ("model.revision=1e10", "model.revision", "1e10"),
        ("model.revision='null'", "model.revision", "null"),
        ("data.source=12", "data.source", "12"),
        ("data.source=true", "data.source", "true"),
        ("data.source=*.csv", "data.source", "*.csv"),
        ("data.source=a: b #c.csv", "data.source", "a: b #c.csv"),
        ("data.source=x=y.csv", "data.source", "x=y.csv"),
        ("data.delimiter=|", "data.delimiter", "|"),
        ("data.delimiter= ", "data.delimiter", " "),
        ("optim.learning_rate=1e-4", "optim.learning_rate", 1e-4),
        ("optim.warmup=100", "optim.warmup", 100),
        ("train.micro_batch_size=8", "train.micro_batch_size", 8),
        ("train.micro_batch_size=auto", "train.micro_batch_size", "auto"),
        ("train.bucket=false", "train.bucket", False),
        ("optim={name: sgd, momentum: 0.9}", "optim.momentum", 0.9),
        ("model.config.hidden_size=64", "model.config", {"hidden_size": 64}),
        ("model.config={a: 1, b: {c: x}}", "model.config", {"a": 1, "b": {"c": "x"}}),
    ],
)
def test_override_values_are_read_for_their_field(
    read: Read, minimal: str, override: str, path: str, value: object
) -> None:
    section, key = path.split(".")
    assert getattr(getattr(read(minimal, override).recipe, section), key) == value


def test_text_fields_of_a_file_keep_what_is_written(read: Read, minimal: str) -> None:
    text = minimal.replace("revision: abc", "revision: 0012").replace("config: small", "config: 2024")
    recipe = read(text).recipe
    assert (recipe.model.revision, recipe.data.config) == ("0012", "2024")


def test_an_override_adds_to_a_mapping_and_a_whole_mapping_replaces_it(read: Read, minimal: str) -> None:
    text = minimal + "train: {extra: {a: 1, b: 2}}\n"
    assert read(text, "train.extra.b=3").recipe.train.extra == {"a": 1, "b": 3}
    assert read(text, "train.extra={c: 3}").recipe.train.extra == {"c": 3}


def test_keys_of_a_mapping_may_contain_dots(read: Read, minimal: str) -> None:
    assert read(minimal + "train: {extra: {a.b: 1}}\n").recipe.train.extra == {"a.b": 1}


@pytest.mark.parametrize("override", ["data.source=reviews.csv", "data.train=a.tsv", "data.train=a.csv.gz"])
def test_other_data_clear_what_described_the_old(read: Read, minimal: str, override: str) -> None:
    loaded = read(minimal, override)
    recipe = loaded.recipe
    assert (recipe.data.config, recipe.data.limit) == (None, 50)
    assert recipe.task.model_dump()["text"] is None
    assert recipe.task.model_dump()["label"] is None
    assert "data.config" in loaded.notes[0]


def test_a_file_for_training_clears_the_source(read: Read, minimal: str) -> None:
    assert read(minimal, "data.train=a.tsv", "data.validation=b.tsv").recipe.data.source is None


def test_a_file_without_an_ending_clears_the_source(read: Read, minimal: str, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("x", encoding="utf-8")
    assert read(minimal, f"data.train={tmp_path / 'rows'}").recipe.data.source is None


def test_another_split_clears_nothing(read: Read, minimal: str) -> None:
    loaded = read(minimal, "data.validation=dev")
    assert (loaded.recipe.data.config, loaded.notes) == ("small", [])


def test_what_the_same_layer_sets_is_not_cleared(read: Read, minimal: str) -> None:
    loaded = read(minimal, "task.text=review", "data.columns=[review,kind]", "data.source=reviews.csv")
    assert loaded.recipe.task.model_dump()["text"] == ["review"]
    assert loaded.recipe.data.columns == ["review", "kind"]
    assert "task.text" not in loaded.notes[0]


def test_the_demo_clears_as_an_override_does(read: Read, minimal: str) -> None:
    loaded = read(minimal + "demo: {data.source: 'demo:x'}\n", demo=True)
    assert (loaded.recipe.data.config, loaded.recipe.task.model_dump()["text"]) == (None, None)


def test_another_checkpoint_clears_revision_and_tokenizer(read: Read, minimal: str) -> None:
    model = read(minimal + "train: {}\n", "model.checkpoint=my/bert").recipe.model
    assert (model.checkpoint, model.revision, model.tokenizer) == ("my/bert", None, None)


def test_sizes_of_a_scratch_model_go_with_it(read: Read, minimal: str) -> None:
    text = minimal + "demo: {model.checkpoint: 'scratch:bert', model.config: {hidden_size: 64}}\n"
    assert read(text, "model.checkpoint=scratch:ernie", demo=True).recipe.model.config == {"hidden_size": 64}
    assert read(text, "model.checkpoint=my/bert", demo=True).recipe.model.config == {}


def test_settings_of_a_real_checkpoint_stay_when_it_is_replaced(read: Read, minimal: str) -> None:
    text = minimal.replace("tokenizer: other/bert", "config: {layer_norm_eps: 1e-6}")
    assert read(text, "model.checkpoint=my/bert").recipe.model.config == {"layer_norm_eps": 1e-6}


def test_origins_name_layer_and_line(read: Read, minimal: str) -> None:
    text = minimal + "demo:\n  train.epochs: 5\n"
    origins = read(text, "train.seed=1", demo=True).origins
    assert origins["data.source"].endswith("example.yaml:4")
    assert origins["train.epochs"].endswith("example.yaml:6, demo")
    assert origins["train.seed"] == "command line"
    assert origins["train.bucket"] == "default"


def test_origins_say_what_cleared_a_value(read: Read, minimal: str) -> None:
    origins = read(minimal, "data.source=x.csv").origins
    assert origins["task.text"] == "default; cleared by data.source (command line)"


def test_a_mapping_made_by_two_layers_names_both(read: Read, minimal: str) -> None:
    text = minimal + "train:\n  extra:\n    a: 1\n"
    origin = read(text, "train.extra.b=2").origins["train.extra"]
    assert origin.endswith("example.yaml:6; command line")


def test_origins_cover_every_key(read: Read, minimal: str) -> None:
    loaded = read(minimal)
    dumped = loaded.recipe.model_dump()
    sections = {"task", *SECTIONS} - OPTIONAL
    expected = {f"{s}.{k}" for s in sections for k in dumped[s]} | (set(dumped) - sections)
    assert set(loaded.origins) == expected


def test_a_run_folder_is_a_recipe(read: Read, minimal: str, tmp_path: Path, tasks: dict[str, type]) -> None:
    recipe = read(minimal).recipe
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    again = load(str(tmp_path / "run"), task_options=tasks.__getitem__, task_names=list(tasks))
    assert again.recipe == recipe


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("text_clss", "did you mean 'text_cls'?"),
        ("no/such/text_cls.yaml", "no such file; did you mean 'text_cls'?"),
        (".", "holds no recipe.yaml"),
    ],
)
def test_an_unknown_recipe_is_refused_with_a_hint(
    reference: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says.replace("?", r"\?")):
        find(reference)


def test_a_file_with_nearly_that_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"did you mean 'mine\.yaml'\?"):
        find(str(tmp_path / "mien.yaml"))


def test_other_data_clear_whatever_option_the_task_says_describes_them(
    read: Read, minimal: str, tasks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnLong(tasks["sorting"]):
        columns: ClassVar[tuple[str, ...]] = ("on_long",)

    monkeypatch.setitem(tasks, "sorting", OnLong)
    text = minimal.replace("label: kind", "label: kind, on_long: error")
    options = read(text, "data.source=x.csv").recipe.task.model_dump()
    assert (options["on_long"], options["label"]) == ("truncate", "kind")


@pytest.mark.parametrize("override", ["loss.class_weights={spam: 3}", "loss.class_weights.spam=3"])
def test_a_mapping_can_be_given_where_a_word_could_stand(read: Read, minimal: str, override: str) -> None:
    assert read(minimal, override).recipe.loss.class_weights == {"spam": 3.0}
    assert read(minimal, "loss.class_weights=balanced").recipe.loss.class_weights == "balanced"
