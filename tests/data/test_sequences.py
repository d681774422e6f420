"""Documents in blocks, prompts with completions: every token predicted once, prompts never."""

import pytest

from nlp_finetune.data import sequences
from nlp_finetune.data.sequences import IGNORED
from tests.tokenizers import letters

TEXTS = ["abcdefghij", "klm", "n"]


def predicted(columns: dict, tokenizer) -> list[str]:
    """What the labels ask for, in order, the end of text as a full stop."""
    ids = [label for labels in columns["labels"] for label in labels[1:] if label != IGNORED]
    return ["." if i == tokenizer.eos_token_id else tokenizer.decode([i]) for i in ids]


def test_blocks_keep_to_their_document_and_predict_each_token_once() -> None:
    tokenizer = letters()
    columns = sequences.blocks(TEXTS, tokenizer, size=4, cross_documents=False)
    assert max(columns["length"]) == 4
    assert columns["source"] == [0, 0, 0, 0, 1, 2]
    assert "".join(predicted(columns, tokenizer)) == "bcdefghij.lm.."


def test_blocks_that_cross_documents_are_full_and_know_whose_token_is_whose() -> None:
    tokenizer = letters()
    columns = sequences.blocks(TEXTS, tokenizer, size=6, cross_documents=True)
    assert columns["length"] == [6, 6, 6, 2]
    assert columns["source"] == [[0], [0], [1, 2], [2]]
    assert columns["segments"] == [[5], [5], [4, 1], [1]]
    assert "".join(predicted(columns, tokenizer)) == "bcdefghij.klm.n."


def test_a_document_of_one_token_without_an_end_has_no_block() -> None:
    tokenizer = letters(eos_token=None)
    assert sequences.blocks(["n"], tokenizer, size=4, cross_documents=False)["source"] == []


def test_a_token_that_the_tokenizer_ends_texts_with_is_not_doubled() -> None:
    tokenizer = letters()
    assert sequences.tokens(["ab</s>"], tokenizer, special=True) == sequences.tokens(["ab"], tokenizer, special=True)


def test_only_the_completion_and_its_end_are_learned() -> None:
    tokenizer = letters()
    columns = sequences.fitted(sequences.completions(["abc"], ["de"], tokenizer), tokenizer, size=20)
    assert "".join(predicted(columns, tokenizer)) == "de."
    assert columns["length"] == [6]


def test_a_long_prompt_loses_its_beginning_and_no_completion() -> None:
    tokenizer = letters()
    columns = sequences.fitted(sequences.completions(["abcdefgh"], ["xy"], tokenizer), tokenizer, size=8)
    assert tokenizer.decode(columns["input_ids"][0]) == "defghxy</s>"
    assert "".join(predicted(columns, tokenizer)) == "xy."


def test_a_long_completion_leaves_a_quarter_to_the_prompt_and_loses_its_end() -> None:
    tokenizer = letters()
    columns = sequences.fitted(sequences.completions(["abcdefgh"], ["opqrstuvwxyz"], tokenizer), tokenizer, size=8)
    assert tokenizer.decode(columns["input_ids"][0]) == "ghopqrst"


def test_a_cut_prompt_keeps_the_token_that_opens_every_text() -> None:
    assert sequences.keep_end([0, 5, 6, 7, 8], 3, begin=0) == [0, 7, 8]
    assert sequences.keep_end([4, 5, 6, 7, 8], 3, begin=0) == [6, 7, 8]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_on_the_right_and_never_learned_even_where_it_is_the_end_of_text(side: str) -> None:
    tokenizer = letters(pad_token="</s>", padding_side=side)
    columns = sequences.blocks(["abcd", "e"], tokenizer, size=8, cross_documents=False)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    batch = sequences.SequenceCollator(tokenizer)(rows)
    end = tokenizer.eos_token_id
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert batch["labels"][1].tolist() == [batch["input_ids"][1, 0].item(), end, IGNORED, IGNORED, IGNORED]


def test_a_batch_of_crossing_blocks_says_which_row_each_prediction_belongs_to() -> None:
    tokenizer = letters()
    columns = sequences.blocks(TEXTS, tokenizer, size=6, cross_documents=True)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    batch = sequences.SequenceCollator(tokenizer)(rows[2:])
    assert batch["segments"].tolist() == [[-1, 0, 0, 0, 0, 1], [-1, 0, -1, -1, -1, -1]]
