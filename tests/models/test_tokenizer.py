"""The checkpoint's tokenizer, another one, or one fitted on the texts; always within the embedding."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertTokenizer

from nlp_finetune.errors import InputError
from nlp_finetune.models.checkpoint import Checkpoint, resolve
from nlp_finetune.models.loading import load_config
from nlp_finetune.models.tokenizer import check_length, fit_length, largest_id, load_saved_tokenizer, load_tokenizer

from .conftest import MINILM, SIZES, Lines, load

TEXTS = [
    "The plot is thin, but the actors carry it.", "A dull film; the plot never moves.",
    "Wonderful acting and a moving plot!", "房间很干净\uff0c服务很好。", "电影不好看\uff0c情节太慢。",
]  # fmt: skip


def scratch(family: str, tokenizer: str | None = "train", say: Lines | None = None, **edits: object):
    """Tokenizer and completed configuration of a family built from scratch."""
    checkpoint = resolve(f"scratch:{family}")
    config = load_config(checkpoint, overrides={}, edits={**SIZES.get(family, {}), **edits})
    found = load_tokenizer(checkpoint, tokenizer=tokenizer, texts=lambda: TEXTS, config=config, say=say)
    return found, config


def pretrained(checkpoint: str | Checkpoint, tokenizer: str | None = None, say: Lines | None = None):
    checkpoint = resolve(checkpoint) if isinstance(checkpoint, str) else checkpoint
    config = load_config(checkpoint, overrides={}, edits={})
    return load_tokenizer(checkpoint, tokenizer=tokenizer, texts=None, config=config, say=say), config


def test_null_means_the_checkpoints_own() -> None:
    tokenizer, config = pretrained(MINILM)
    assert tokenizer("Hello world, unaffable!")["input_ids"] == [
        101,
        7592,
        2088,
        1010,
        14477,
        20961,
        3468,
        999,
        102,
    ]
    assert (len(tokenizer), tokenizer.model_max_length) == (config.vocab_size, 512)


def test_a_folder_without_tokenizer_files_is_refused(saved: Callable[..., str]) -> None:
    with pytest.raises(InputError, match=r"no tokenizer files .*it holds config\.json"):
        pretrained(saved("bert"))


def test_a_tokenizer_without_words_is_refused(saved: Callable[..., str]) -> None:
    folder = saved("bert")
    BertTokenizer().save_pretrained(folder)
    with pytest.raises(InputError, match="its tokenizer is empty, it has 5 special tokens"):
        pretrained(folder)


def test_a_damaged_tokenizer_is_refused(saved: Callable[..., str]) -> None:
    folder = saved("bert")
    (Path(folder) / "tokenizer.json").write_text('{"version": "1.0", "model": {')
    with pytest.raises(InputError, match="its tokenizer can't be loaded"):
        pretrained(folder)


def test_a_vocabulary_larger_than_the_embedding_is_refused(
    saved: Callable[..., str], vocabulary: Callable[..., str]
) -> None:
    folder = saved("bert")
    vocabulary(61)
    with pytest.raises(InputError, match=r"a vocabulary larger than the embedding\. Its ids go up to 60.* 60 rows"):
        pretrained(folder)


def test_a_vocabulary_as_large_as_the_embedding_is_taken(
    saved: Callable[..., str], vocabulary: Callable[..., str]
) -> None:
    folder = saved("bert")
    vocabulary(60)
    assert largest_id(pretrained(folder)[0]) == 59


def test_another_folders_tokenizer_is_taken_and_checked_too(
    saved: Callable[..., str], vocabulary: Callable[..., str]
) -> None:
    folder = saved("bert")
    assert len(pretrained(folder, vocabulary(50, folder="small"))[0]) == 50
    with pytest.raises(InputError, match="larger than the embedding"):
        pretrained(folder, vocabulary(70, folder="large"))


def test_a_run_folder_lends_the_tokenizer_of_its_model(
    saved: Callable[..., str], vocabulary: Callable[..., str], tmp_path: Path
) -> None:
    vocabulary(40, folder="run/model")
    (tmp_path / "run" / "recipe.yaml").write_text("")
    assert len(pretrained(saved("bert"), str(tmp_path / "run"))[0]) == 40


@pytest.mark.parametrize(
    ("family", "kind", "pieces"),
    [
        ("bert", "WordPiece", ["[CLS]", "[SEP]"]),
        ("ernie", "WordPiece", ["[CLS]", "[SEP]"]),
        ("distilbert", "WordPiece", ["[CLS]", "[SEP]"]),
        ("electra", "WordPiece", ["[CLS]", "[SEP]"]),
        ("roberta", "BPE", ["<s>", "</s>"]),
        ("albert", "BPE", ["[CLS]", "[SEP]"]),
        ("modernbert", "BPE", ["[CLS]", "[SEP]"]),
    ],
)
def test_train_fits_a_tokenizer_of_the_familys_kind(family: str, kind: str, pieces: list[str]) -> None:
    tokenizer, config = scratch(family)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("the plot")["input_ids"])
    assert type(tokenizer.backend_tokenizer.model).__name__ == kind
    assert [tokens[0], tokens[-1]] == pieces
    assert "".join(tokens[1:-1]).replace("##", "").replace("Ġ", "") == "theplot"
    assert config.vocab_size == largest_id(tokenizer) + 1 == len(tokenizer)
    assert config.pad_token_id == tokenizer.pad_token_id


def test_chinese_characters_are_split_one_by_one() -> None:
    tokenizer, _ = scratch("ernie")
    assert tokenizer.tokenize("房间很好") == ["房", "间", "很", "好"]


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_vocab_size_limits_what_is_fitted(family: str) -> None:
    size = {"bert": 60, "gpt2": 270}[family]
    tokenizer, config = scratch(family, vocab_size=size)
    assert len(tokenizer) == config.vocab_size == size


def test_a_vocabulary_too_small_for_bytes_is_refused() -> None:
    with pytest.raises(InputError, match=r"byte-level BPE needs 257.*Raise model\.config\.vocab_size"):
        scratch("gpt2", vocab_size=100)


@pytest.mark.slow
def test_the_same_texts_give_the_same_ids_in_every_process(project: Path) -> None:
    code = (
        "import sys; from nlp_finetune.models.vocabulary import fit; from transformers import AutoConfig\n"
        "for family in ('bert', 'roberta'):\n"
        "    config = AutoConfig.for_model(family, vocab_size=300)\n"
        "    print(sorted(fit(lambda: sys.argv[1:], config, lambda line: None).get_vocab().items()))"
    )
    command = [sys.executable, "-c", code, *TEXTS]
    there = subprocess.run(command, capture_output=True, text=True, check=True, cwd=project).stdout
    here = [sorted(scratch(family, vocab_size=300)[0].get_vocab().items()) for family in ("bert", "roberta")]
    assert there.splitlines() == [str(vocabulary) for vocabulary in here]


def test_a_fitted_tokenizer_loads_in_plain_transformers(tmp_path: Path) -> None:
    tokenizer, config = scratch("roberta")
    for part in (tokenizer, config):
        part.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("The plot")["input_ids"] == tokenizer("The plot")["input_ids"]
    assert again.model_max_length == tokenizer.model_max_length


def test_fitting_for_a_pretrained_embedding_is_refused() -> None:
    with pytest.raises(InputError, match="belongs to its own vocabulary"):
        pretrained(MINILM, "train")


def test_a_family_from_scratch_has_no_tokenizer_of_its_own() -> None:
    with pytest.raises(InputError, match=r"set model\.tokenizer=train"):
        scratch("bert", tokenizer=None)


def test_a_family_from_scratch_takes_its_size_from_a_given_vocabulary(vocabulary: Callable[..., str]) -> None:
    _, config = scratch("bert", tokenizer=vocabulary(37, folder="words"))
    assert config.vocab_size == 37


def test_a_larger_vocab_size_that_was_asked_for_is_kept(vocabulary: Callable[..., str]) -> None:
    _, config = scratch("bert", tokenizer=vocabulary(37, folder="words"), vocab_size=64)
    assert config.vocab_size == 64


def test_gpt2_pads_with_its_end_of_text_and_says_so(said: Lines) -> None:
    tokenizer, config = scratch("gpt2", say=said)
    assert tokenizer.pad_token == tokenizer.eos_token == "<|endoftext|>"
    assert config.pad_token_id == config.eos_token_id == tokenizer.pad_token_id
    assert any("<|endoftext|> pads" in line for line in said)


def test_roberta_counts_positions_from_its_padding_id_on() -> None:
    tokenizer, config = scratch("roberta")
    assert tokenizer.model_max_length == config.max_position_embeddings - config.pad_token_id - 1
    model = load("scratch:roberta", edits=SIZES["roberta"] | {"vocab_size": 60, "pad_token_id": config.pad_token_id})
    longest = tokenizer("plot " * 99, truncation=True, return_tensors="pt")["input_ids"] % 60
    assert model(longest).logits.shape == (1, 3)


def test_a_stated_length_is_lowered_to_the_models_positions_and_never_raised() -> None:
    config = load_config(resolve("scratch:bert"), overrides={}, edits=SIZES["bert"])
    tokenizer = BertTokenizer(vocab={"[PAD]": 0, "a": 1})
    for stated, expected in ((512, 40), (10, 10)):
        tokenizer.model_max_length = stated
        fit_length(tokenizer, config)
        assert tokenizer.model_max_length == expected


def test_a_length_beyond_the_models_positions_is_refused_by_its_name() -> None:
    _, config = scratch("roberta")
    most = config.max_position_embeddings - config.pad_token_id - 1
    check_length(config, option="task.max_length", tokens=most)
    with pytest.raises(InputError, match=f"task.max_length {most + 1}: this model .roberta. has {most} positions"):
        check_length(config, option="task.max_length", tokens=most + 1)
    check_length(scratch("t5")[1], option="task.max_length", tokens=10_000)


def test_the_real_vocabulary_of_ernie_keeps_its_last_id(shared_data: Path) -> None:
    folder = str(shared_data / "tokenizers" / "ernie-3.0-base-zh")
    tokenizer, config = scratch("ernie", tokenizer=folder)
    assert (len(tokenizer), largest_id(tokenizer), config.vocab_size) == (39979, 39979, 39980)
    assert tokenizer.unk_token_id == 39979
    assert tokenizer.model_max_length == SIZES["ernie"]["max_position_embeddings"]
    model = load("scratch:ernie", edits=SIZES["ernie"] | {"vocab_size": config.vocab_size}, tokenizer=tokenizer)
    assert model(**tokenizer("酒店\u2603很好", return_tensors="pt")).logits.isfinite().all()


def test_the_embedding_of_ernie_may_have_more_rows_than_its_vocabulary(shared_data: Path) -> None:
    folder = str(shared_data / "tokenizers" / "ernie-3.0-base-zh")
    assert scratch("ernie", tokenizer=folder, vocab_size=40000)[1].vocab_size == 40000


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("bert-base-cased", ["[CLS]", "Hello", "world", "[SEP]"]),
        ("bert-base-uncased", ["[CLS]", "hello", "world", "[SEP]"]),
    ],
)
def test_a_bare_vocabulary_is_read_in_its_own_case(shared_data: Path, name: str, tokens: list[str]) -> None:
    tokenizer, _ = scratch("bert", tokenizer=str(shared_data / "tokenizers" / name))
    assert tokenizer.convert_ids_to_tokens(tokenizer("Hello world")["input_ids"]) == tokens


def test_vocabulary_and_merges_alone_are_read_as_the_models_family(shared_data: Path) -> None:
    tokenizer, config = scratch("gpt2", tokenizer=str(shared_data / "tokenizers" / "gpt2"))
    assert tokenizer("Hello world")["input_ids"] == [15496, 995]
    assert (config.vocab_size, config.eos_token_id) == (50257, 50256)


def test_a_saved_tokenizer_comes_back(vocabulary: Callable[..., str]) -> None:
    assert len(load_saved_tokenizer(Path(vocabulary(30)))) == 30


@pytest.mark.parametrize(("family", "role"), [("bart", "eos"), ("t5", "pad"), ("pegasus", "pad"), ("marian", "pad")])
def test_a_decoder_from_scratch_starts_with_the_token_that_plays_the_familys_part(family: str, role: str) -> None:
    tokenizer, config = scratch(family)
    assert config.decoder_start_token_id == getattr(tokenizer, f"{role}_token_id")
    assert config.decoder_start_token_id is not None
    assert config.eos_token_id == tokenizer.eos_token_id == tokenizer("worth it")["input_ids"][-1]


@pytest.mark.parametrize("family", ["t5", "distilbert", "modernbert"])
def test_a_fitted_tokenizer_gives_no_input_that_the_model_does_not_take(family: str) -> None:
    tokenizer, _ = scratch(family)
    assert set(tokenizer("worth it")) == {"input_ids", "attention_mask"}


def test_mpnet_pads_with_the_id_that_its_code_wants() -> None:
    tokenizer, config = scratch("mpnet")
    assert (tokenizer.pad_token_id, config.pad_token_id) == (1, 1)
