"""Vectors and their losses, beside those of sentence-transformers."""

import pytest
import torch
import torch.nn.functional as F

from nlp_finetune.learning.losses import build_loss
from nlp_finetune.models.embeddings import in_batch_loss, pool, scored_loss

cross_entropy, mse = build_loss("cross_entropy"), build_loss("mse")


def vectors(rows: int, texts: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(rows, texts, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def different(rows: int, texts: int) -> torch.Tensor:
    return torch.arange(rows * texts).view(rows, texts)


def theirs(name: str, found: torch.Tensor, labels: torch.Tensor | None, **options) -> torch.Tensor:
    """Loss of sentence-transformers for vectors that a model would give."""
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")

    class Given(torch.nn.Module):
        def forward(self, features: dict) -> dict:
            return features

    loss = getattr(losses, name)(Given(), **options)
    features = [{"sentence_embedding": found[:, side]} for side in range(found.shape[1])]
    return loss(features, labels)


def test_scored_pairs_have_the_cosine_similarity_loss_of_sentence_transformers() -> None:
    found, scores = vectors(5, 2), torch.rand(5, generator=torch.Generator().manual_seed(1))
    expected = theirs("CosineSimilarityLoss", found, scores)
    assert torch.allclose(scored_loss(mse, found, scores) / 5, expected, atol=1e-6)


@pytest.mark.parametrize("texts", [2, 3])
def test_positive_pairs_have_the_multiple_negatives_ranking_loss_of_sentence_transformers(texts: int) -> None:
    found = vectors(6, texts)
    expected = theirs("MultipleNegativesRankingLoss", found, None, scale=20.0)
    assert torch.allclose(in_batch_loss(cross_entropy, found, different(6, texts), scale=20.0) / 6, expected, atol=1e-5)


def test_a_text_that_is_the_same_is_no_negative() -> None:
    found, ids = vectors(4, 2), different(4, 2)
    ids[2, 1] = ids[0, 1]  # rows 0 and 2 share their positive
    ids[3, 0] = ids[1, 0]  # rows 1 and 3 share their anchor
    without = []
    for row, others in enumerate(([0, 1, 3], [0, 1, 2], [1, 2, 3], [0, 2, 3])):
        logits = 20.0 * found[row, 0] @ found[others, 1].T
        without.append(cross_entropy(logits.unsqueeze(0), torch.tensor([others.index(row)])))
    assert torch.allclose(in_batch_loss(cross_entropy, found, ids, scale=20.0), torch.stack(without).sum(), atol=1e-5)


def test_a_negative_equal_to_another_rows_anchor_still_counts_against_the_rest() -> None:
    found, ids = vectors(3, 3), different(3, 3)
    ids[0, 2] = ids[1, 0]
    changed = in_batch_loss(cross_entropy, found, ids, scale=5.0)
    assert changed < in_batch_loss(cross_entropy, found, different(3, 3), scale=5.0)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_does_not_change_a_vector(pooling: str) -> None:
    hidden = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    whole = pool(hidden, mask, pooling=pooling)
    alone = pool(hidden[1:, :3], mask[1:, :3], pooling=pooling)
    assert torch.allclose(whole[1:], alone)
    assert torch.allclose(whole.norm(dim=-1), torch.ones(2))
