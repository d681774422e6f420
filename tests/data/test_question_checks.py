"""What `check` says about answers and contexts."""

from nlp_finetune.data.question_checks import examine
from nlp_finetune.data.questions import Report


def only(report: Report, split: str = "train") -> tuple[str, str, str]:
    (finding,) = examine({split: report}, {})
    return finding.level, finding.code, finding.message


def test_clean_data_give_no_finding() -> None:
    assert examine({"train": Report(rows=3, answers=3)}, {"train": ["a", "b"], "test": ["c"]}) == []


def test_questions_without_a_usable_answer_are_a_warning_with_their_rows() -> None:
    level, code, message = only(Report(rows=9, answers=9, lost=[2, 4, 4, 6, 8], unusable=[2, 4, 6, 8]))
    assert (level, code) == ("warning", "answers_not_found")
    assert "5 of 9 answers" in message
    assert "(rows 2, 4, 6, ...); 4 questions have no other: left out of training" in message


def test_in_other_splits_such_questions_are_scored_by_their_text() -> None:
    assert only(Report(answers=1, lost=[1], unusable=[1]), "validation")[2].endswith("scored by the text alone")


def test_lost_answers_beside_good_ones_are_a_note() -> None:
    assert only(Report(answers=3, lost=[2]))[0] == "note"


def test_moved_answers_are_a_note() -> None:
    assert only(Report(answers=3, moved=[2]))[:2] == ("note", "answers_moved")


def test_empty_questions_are_a_warning() -> None:
    level, code, message = only(Report(rows=5, blank=[3], unusable=[3]))
    assert (level, code) == ("warning", "empty_text")
    assert "1 of 5 rows have an empty question or context (row 3): left out of training" in message


def test_contexts_that_two_splits_share_are_a_warning() -> None:
    (finding,) = examine({}, {"train": ["a", "a", "b"], "validation": ["b", "c", "c"]})
    assert (finding.level, finding.code) == ("warning", "shared_contexts")
    assert finding.message.startswith("validation: 1 of 2 contexts are also in train")
