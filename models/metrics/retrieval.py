"""Search among the pictures of one set, each once as the query and all others as what is searched; without torch.

Vectors have the length 1, so that their product is the cosine. A query whose label no other picture has can find
nothing, and is left out of every figure (as in Musgrave et al., A Metric Learning Reality Check, arXiv 2003.08505).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_ROWS_AT_ONCE = 256  # queries whose cosines are held together: of 50,000 pictures, 50 MB


def nearest_rows(vectors: NDArray[Any], count: int) -> IntArray:
    """Returns the `count` nearest other pictures of each one, (n, count), best first; vectors: (n, dim), count < n."""
    parts = []
    for _, likeness in _likenesses(vectors):
        best = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(likeness, best, 1), axis=1, kind="stable")
        parts.append(np.take_along_axis(best, order, 1))
    return np.concatenate(parts)


def has_peer(class_ids: IntArray) -> NDArray[np.bool_]:
    """Tells which pictures share their label with another one, (n,)."""
    return np.asarray(np.bincount(class_ids)[class_ids] > 1)


def recall_at(vectors: NDArray[Any], class_ids: IntArray, count: int) -> float:
    """Returns the share of queries that find a picture of their label among the `count` nearest; 0 without a query."""
    queries = has_peer(class_ids)
    if not queries.any():
        return 0.0
    nearest = nearest_rows(vectors, min(count, len(vectors) - 1))
    is_found = (class_ids[nearest] == class_ids[:, None]).any(1)
    return float(is_found[queries].mean())


def mean_average_precision(vectors: NDArray[Any], class_ids: IntArray) -> float:
    """Returns the mean of scikit-learn's `average_precision_score` over queries; equal cosines keep their order."""
    values: list[FloatArray] = []
    for start, likeness in _likenesses(vectors):
        rows = np.arange(start, start + len(likeness))
        order = np.argsort(-likeness, axis=1, kind="stable")[:, :-1]  # the query itself comes last
        hits = class_ids[order] == class_ids[rows][:, None]
        precision = np.cumsum(hits, axis=1) / np.arange(1, order.shape[1] + 1)
        wanted = hits.sum(1)
        values.append(((precision * hits).sum(1) / np.maximum(wanted, 1))[wanted > 0])
    found = np.concatenate(values)
    return float(found.mean()) if len(found) else 0.0


def _likenesses(vectors: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yields the first row and the cosines (rows, n) of some queries; a picture's own is minus infinity."""
    vectors = vectors.astype(np.float32, copy=False)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        likeness = vectors[start : start + _ROWS_AT_ONCE] @ vectors.T
        rows = np.arange(len(likeness))
        likeness[rows, start + rows] = -np.inf
        yield start, likeness
