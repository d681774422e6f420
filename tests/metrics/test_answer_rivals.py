"""The rival that answers with a sentence."""

from nlp_finetune.metrics.answer_rivals import closest_sentences

CONTEXT = "The bridge opened in 1831. A toll was taken by a widow named Hester Quill. Today there is cheese."


def test_the_sentence_that_shares_rare_words_is_the_answer() -> None:
    questions = ["Who took the toll as a widow?", "When was the bridge opened?"]
    assert closest_sentences(questions, [CONTEXT, CONTEXT]) == [
        "A toll was taken by a widow named Hester Quill.",
        "The bridge opened in 1831.",
    ]


def test_chinese_sentences_end_without_a_space() -> None:
    first, second = "\u6865\u5728\u6cb3\u4e0a\u3002", "\u732b\u5728\u623f\u91cc\u3002"
    assert closest_sentences(["\u732b\u5728\u54ea\u91cc\uff1f"], [first + second]) == [second]


def test_an_empty_context_is_its_own_answer() -> None:
    assert closest_sentences(["Why?"], [" "]) == [" "]
