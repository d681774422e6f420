"""From logits to spans and to the loss."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nlp_finetune.learning.losses import build_loss
from nlp_finetune.models import spans

# [CLS] question [SEP] four words of five characters [SEP]
CHAR_START = [-1, -1, -1, 0, 5, 10, 15, -1]
CHAR_END = [-1, -1, -1, 5, 10, 15, 20, -1]


def window(start: list[float], end: list[float], *, longest: int = 100) -> np.ndarray:
    outputs = SimpleNamespace(start_logits=torch.tensor([start]), end_logits=torch.tensor([end]))
    batch = {
        "char_start": torch.tensor([CHAR_START]),
        "char_end": torch.tensor([CHAR_END]),
        "null_position": torch.tensor([0]),
    }
    return spans.window_spans(outputs, batch, longest=longest)[0]


def test_the_best_span_is_scored_against_no_answer() -> None:
    found = window([1, 0, 0, 0, 7, 0, 0, 0], [2, 0, 0, 0, 0, 5, 0, 0])
    assert found[0].tolist() == [7 + 5 - 1 - 2, 5, 15]


def test_tokens_outside_of_the_context_and_ends_before_starts_are_no_answers() -> None:
    found = window([0, 9, 0, 0, 0, 0, 8, 9], [0, 9, 0, 8, 0, 0, 0, 9])
    assert len(found) == 4 + 3 + 2 + 1
    assert (found[:, 1] < found[:, 2]).all()
    assert found[0, 1:].tolist() in ([15, 20], [0, 5])


def test_longer_answers_than_any_seen_are_left_out() -> None:
    found = window([0, 0, 0, 9, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 9, 0], longest=10)
    assert (found[:, 2] - found[:, 1]).max() == 10


def test_a_token_longer_than_any_answer_is_one_all_the_same() -> None:
    found = window([0.0] * 8, [0.0] * 8, longest=1)
    assert sorted(found[:, 1:].tolist()) == [[0, 5], [5, 10], [10, 15], [15, 20]]


def test_a_window_without_context_has_no_spans() -> None:
    outputs = SimpleNamespace(start_logits=torch.zeros(1, 3), end_logits=torch.zeros(1, 3))
    nothing = torch.full((1, 3), -1)
    batch = {"char_start": nothing, "char_end": nothing, "null_position": torch.tensor([0])}
    assert spans.window_spans(outputs, batch, longest=9)[0].shape == (0, 3)


def test_windows_are_merged_by_score_with_each_span_once() -> None:
    one = np.array([[3.0, 0, 5], [1.0, 5, 9]])
    other = np.array([[2.0, 5, 9], [0.5, 20, 25]])
    assert spans.merge([one, np.empty((0, 3)), other]).tolist() == [[3, 0, 5], [2, 5, 9], [0.5, 20, 25]]


def test_shares_of_spans_and_of_no_answer_add_up() -> None:
    found, none = spans.shares(np.array([[np.log(3), 0, 5], [0.0, 5, 9]]))
    assert found.tolist() == pytest.approx([0.6, 0.2])
    assert none == pytest.approx(0.2)
    assert spans.shares(np.empty((0, 3)))[1] == 1.0


def model_and_batch() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    from transformers import BertConfig, BertForQuestionAnswering

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=2
    )
    ids = torch.randint(5, 40, (3, 9))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = {"start_positions": torch.tensor([0, 3, 2]), "end_positions": torch.tensor([0, 5, 2])}
    return BertForQuestionAnswering(config).eval().requires_grad_(False), {**batch, **labels}


def test_the_loss_is_that_of_transformers_summed_over_windows() -> None:
    model, batch = model_and_batch()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    ours = spans.span_loss(build_loss("cross_entropy"), model(**inputs), batch)
    assert float(ours) == pytest.approx(3 * float(model(**batch).loss), rel=1e-6)


@pytest.mark.parametrize("loss", [build_loss("cross_entropy", label_smoothing=0.1), build_loss("focal")])
def test_padding_does_not_change_the_loss(loss) -> None:
    model, batch = model_and_batch()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    padded = {name: torch.nn.functional.pad(value, (0, 4)) for name, value in inputs.items()}
    labels = {name: batch[name] for name in ("start_positions", "end_positions")}
    whole = spans.span_loss(loss, model(**inputs), batch)
    assert float(spans.span_loss(loss, model(**padded), {**padded, **labels})) == pytest.approx(float(whole), rel=1e-5)


def test_windows_whose_answer_has_no_place_do_not_count() -> None:
    model, batch = model_and_batch()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    outputs = model(**inputs)
    loss = build_loss("cross_entropy")
    ignored = {**batch, **{name: torch.tensor([-100, 3, 2]) for name in ("start_positions", "end_positions")}}
    rest = {name: value[1:] for name, value in ignored.items()}
    without = SimpleNamespace(start_logits=outputs.start_logits[1:], end_logits=outputs.end_logits[1:])
    assert float(spans.span_loss(loss, outputs, ignored)) == pytest.approx(float(spans.span_loss(loss, without, rest)))
