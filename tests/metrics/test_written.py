"""Scores of written texts against what the libraries say, and what they leave to us."""

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics import BLEU, CHRF

from nlp_finetune.metrics.written import NAMES, Tokenizer, bleu_tokenizer, measure, rivals, scores

WRITTEN = ["The cat sat on the mat.", "A dog barked twice", "", "Rain is falling, they say."]
REFERENCES = [
    ["The cat was sitting on the mat."],
    ["The dog barked.", "A dog barked twice"],
    ["Nothing was said."],
    ["They say it's raining.", "It rains, they say.", "Rain, they say."],
]


def test_english_words_are_those_of_rouge_score_with_its_stemmer() -> None:
    text = "The U.S. economy's 2 running dogs_and cats -- re-elected, naïveté aside?"
    ascii_only = text.replace("naïveté", "naivete")
    assert Tokenizer().tokenize(ascii_only) == DefaultTokenizer(use_stemmer=True).tokenize(ascii_only)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Die Prüfung fällt aus.", ["die", "prüfung", "fällt", "aus"]),
        ("Встреча в пять", ["встреча", "в", "пять"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("会议改到周五10点。", [*"会议改到周五", "10", "点"]),
    ],
)
def test_words_of_every_script_count_and_characters_where_there_are_no_spaces(text: str, words: list[str]) -> None:
    assert Tokenizer().tokenize(text) == words


def test_rouge_is_the_mean_over_rows_of_the_best_reference() -> None:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    found = scores(measure(WRITTEN, REFERENCES, bleu="13a"))
    for name in ("rouge1", "rouge2", "rougeL"):
        best = [max(scorer.score(r, w)[name].fmeasure for r in rs) for w, rs in zip(WRITTEN, REFERENCES, strict=True)]
        assert found[name] == pytest.approx(np.mean(best))


def test_chrf_and_bleu_are_sacrebleus_corpus_scores_with_as_many_references_as_there_are() -> None:
    streams = [[rs[i] if i < len(rs) else None for rs in REFERENCES] for i in range(3)]
    found = scores(measure(WRITTEN, REFERENCES, bleu="13a"))
    assert found["chrf"] == pytest.approx(CHRF().corpus_score(WRITTEN, streams).score)
    assert found["bleu"] == pytest.approx(BLEU().corpus_score(WRITTEN, streams).score)


@pytest.mark.parametrize("name", NAMES)
def test_a_choice_of_rows_has_the_score_of_those_rows(name: str) -> None:
    whole = measure(WRITTEN, REFERENCES, bleu="13a")
    rows = np.array([3, 1, 1])
    chosen = measure([WRITTEN[i] for i in rows], [REFERENCES[i] for i in rows], bleu="13a")
    assert whole.score(name, rows) == pytest.approx(chosen.score(name))


def test_a_text_that_is_one_of_its_references_is_right() -> None:
    found = scores(measure(["A dog barked twice "], [REFERENCES[1]], bleu="13a"))
    assert (found["exact_match"], found["rougeL"], found["chrf"]) == (1.0, 1.0, 100.0)


def test_chinese_has_scores_above_nothing() -> None:
    found = scores(measure(["会议改到周五下午"], [["会议改到周五上午"]], bleu="zh"))
    assert found["rougeL"] == pytest.approx(7 / 8)
    assert found["bleu"] > 50


@pytest.mark.parametrize(
    ("text", "expected"), [("A dog.", "13a"), ("会议改到周五。", "zh"), ("会議は金曜日です。", "char"), ("123", "13a")]
)
def test_bleu_tokenizes_as_the_script_of_the_targets_wants(text: str, expected: str) -> None:
    assert bleu_tokenizer([text]) == expected


def test_rivals_copy_the_source_or_as_much_of_it_as_targets_have() -> None:
    found = rivals(["a b", "a b c", "a b c d"], ["one two three four five"], bleu="13a")
    assert found == {"copy": ["one two three four five"], "lead": ["one two three"]}
    assert rivals(["会议改"], ["周五的会议"], bleu="zh")["lead"] == ["周五的"]
