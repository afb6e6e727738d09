"""Search figures. Promises: a hand-made set, scikit-learn's average precision, lone labels left out, any chunking."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from saccade.models.metrics import retrieval
from saccade.models.metrics.retrieval import has_peer, mean_average_precision, nearest_rows, recall_at

# Angles of pictures on a circle: two cats side by side, a dog between a cat and the other dog, an owl alone.
ANGLES = np.radians([0.0, 10.0, 25.0, 60.0, 180.0])
VECTORS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1).astype(np.float32)
CAT, DOG, OWL = 0, 1, 2
LABELS = np.array([CAT, CAT, DOG, DOG, OWL])


def unit_vectors(count: int, dim: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_nearest_pictures_come_in_order_and_without_the_query() -> None:
    assert nearest_rows(VECTORS, 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1], [3, 2]]


def test_a_label_of_one_picture_asks_for_nothing() -> None:
    assert has_peer(LABELS).tolist() == [True, True, True, True, False]


def test_recall_counts_queries_with_a_picture_of_their_label_among_the_nearest() -> None:
    assert recall_at(VECTORS, LABELS, 1) == pytest.approx(3 / 4)  # the first dog finds a cat
    assert recall_at(VECTORS, LABELS, 3) == 1.0
    assert recall_at(VECTORS, LABELS, 100) == 1.0


def test_mean_average_precision_of_a_hand_made_set() -> None:
    # Ranks of the one right picture: 1, 1, 3 (two cats come first), 1.
    assert mean_average_precision(VECTORS, LABELS) == pytest.approx((1 + 1 + 1 / 3 + 1) / 4)


def test_mean_average_precision_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, labels = unit_vectors(41), np.arange(41) % 5
    monkeypatch.setattr(retrieval, "_ROWS_AT_ONCE", 7)
    likeness = vectors @ vectors.T
    expected = [
        average_precision_score(np.delete(labels == labels[row], row), np.delete(likeness[row], row))
        for row in range(len(labels))
    ]

    assert mean_average_precision(vectors, labels) == pytest.approx(np.mean(expected), abs=1e-6)


def test_chunks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit_vectors(30)
    whole = nearest_rows(vectors, 5)
    monkeypatch.setattr(retrieval, "_ROWS_AT_ONCE", 4)

    assert (nearest_rows(vectors, 5) == whole).all()


def test_without_any_query_nothing_is_found() -> None:
    labels = np.arange(5)

    assert recall_at(VECTORS, labels, 1) == 0.0
    assert mean_average_precision(VECTORS, labels) == 0.0
