"""Measures an embedder by search: each test picture is a query once, and all others are what is searched."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.qualification.evidence import ClassifyEvidence
from saccade.models.contract.specs import Frozen
from saccade.models.metrics.retrieval import has_peer, mean_average_precision, nearest_rows, recall_at

RECALLS = (1, 5, 10)


class RetrievalFigure(Frozen):
    """What a search of the test split finds with one variant's vectors."""

    queries: int  # pictures that share their label with another
    recall: dict[int, float]  # share of queries with a picture of their label among so many nearest
    mean_average_precision: float


def retrieval_evidence(vectors: NDArray[Any], class_ids: NDArray[np.int64], classes: int) -> ClassifyEvidence:
    """Recall@1 is the accuracy of the nearest picture's label, over queries that can find one; so are its intervals."""
    queries = has_peer(class_ids)
    if not queries.any():
        return ClassifyEvidence(np.full(len(class_ids), -1, np.int64), class_ids, classes, "recall_at_1")
    nearest = class_ids[nearest_rows(vectors, 1)[:, 0]]
    return ClassifyEvidence(nearest[queries], class_ids[queries], classes, "recall_at_1")


def retrieval_figure(vectors: NDArray[Any], class_ids: NDArray[np.int64]) -> RetrievalFigure:
    return RetrievalFigure(
        queries=int(has_peer(class_ids).sum()),
        recall={count: recall_at(vectors, class_ids, count) for count in RECALLS},
        mean_average_precision=mean_average_precision(vectors, class_ids),
    )
